from contextlib import nullcontext

import pytest
import torch

from mnemon.adapters import attach
from mnemon.methods import Start, Step, TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.methods.lwf import Lwf, LwfLearner
from mnemon.models import Base
from tests.contract.table import assert_same_learned, learn
from tests.tiny import tiny_sd_base

SMALL = {"rank": 2, "steps": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def rex(base: Base) -> TrainedConcept:
    return learn(base, Lwf(**SMALL), "rex")


def begin(base: Base, method: Lwf, rex: TrainedConcept) -> LwfLearner:
    base.set_tokens(method.tokens([rex]))
    return method.begin(Start("kiki", "dog", base, [rex], torch.Generator().manual_seed(0)))


def step(base: Base, learner: LwfLearner) -> Step:
    """Four rows of noise, in a base to which the learner's changes are attached."""
    noisy = torch.randn(4, *base.latent_shape(), generator=torch.Generator().manual_seed(1))
    attached = [attach(base.target_modules(), learner.deltas())]

    class Without(nullcontext):  # type: ignore[type-arg]
        def __enter__(self) -> None:
            attached.pop().remove()

        def __exit__(self, *_: object) -> None:
            attached.append(attach(base.target_modules(), learner.deltas()))

    said = base.encode_prompts(["a photo of a dog"] * 4)
    tasks, shares = torch.zeros(4, dtype=torch.long), torch.full((4,), 0.25)
    return Step(base, noisy, torch.full((4,), 300), Without, said, tasks, shares, 0.0)


def test_the_first_concept_is_learned_as_with_lora(base: Base, rex: TrainedConcept) -> None:
    assert_same_learned(rex, learn(base, Lora(**SMALL), "rex"))


def test_the_penalty_is_zero_at_the_teacher_and_what_has_changed_elsewhere() -> None:
    base = tiny_sd_base()
    method = Lwf(**SMALL, distil_weight=3.0)
    rex = learn(base, method, "rex")
    learner = begin(base, method, rex)
    now = step(base, learner)
    prompts = ["a photo of <rex> dog"] * 4
    with torch.no_grad():
        teacher = now.predict(prompts)
    assert learner.regularization_loss(now).item() == 0  # A_t starts at zero
    with torch.no_grad():
        for delta in learner.deltas().values():
            delta.up.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    regularization_loss = learner.regularization_loss(now)
    with torch.no_grad():
        torch.testing.assert_close(regularization_loss, 3.0 * (now.predict(prompts) - teacher).square().mean())
    assert regularization_loss.item() > 1e-6
    ups = [delta.up for delta in learner.deltas().values()]
    assert all(gradient.abs().max() > 0 for gradient in torch.autograd.grad(regularization_loss, ups))


def test_it_keeps_the_predictions_nearer_to_the_teachers(base: Base, rex: TrainedConcept) -> None:
    held, free = (learn(base, Lwf(**SMALL, distil_weight=weight), "kiki", [rex]) for weight in (1e4, 0.0))
    moved = [sum(float(delta.matrix().norm()) for delta in one.deltas.values()) for one in (held, free)]
    assert moved[0] < moved[1]


def test_what_is_distilled_on(base: Base, rex: TrainedConcept) -> None:
    assert begin(base, Lwf(rank=2), rex).past == ["a photo of <rex> dog"]
    assert begin(base, Lwf(rank=2, distil_on="nouns"), rex).past == ["a photo of dog"]
    base.set_tokens({})
