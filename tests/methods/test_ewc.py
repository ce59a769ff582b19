"""Closed forms of elastic weight consolidation."""

from dataclasses import replace

import pytest
import torch

from mnemon.adapters import merge, sum_deltas
from mnemon.methods import Start, TrainedConcept
from mnemon.methods.c_lora import CLora
from mnemon.methods.custom_diffusion import CustomDiffusion
from mnemon.methods.ewc import Ewc, EwcLearner
from mnemon.models import Base
from mnemon.training.examples import draw_batch
from mnemon.training.loss import denoising_loss
from tests.contract.table import assert_same_learned, learn, task
from tests.tiny import tiny_sd_base

SMALL = {"steps": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def rex(base: Base) -> TrainedConcept:
    return learn(base, Ewc(**SMALL, draws=3), "rex")


def begin(base: Base, method: Ewc, earlier: list[TrainedConcept]) -> EwcLearner:
    return method.begin(Start("mug", None, base, earlier, torch.Generator().manual_seed(0)))


def test_the_first_concept_is_learned_as_with_custom_diffusion(base: Base, rex: TrainedConcept) -> None:
    assert_same_learned(replace(rex, extra={}), learn(base, CustomDiffusion(**SMALL), "rex"))


def test_importance_is_the_mean_squared_gradient_of_single_samples(base: Base, rex: TrainedConcept) -> None:
    """Again by hand: the weights themselves take the gradient, the start mark's share of it left out."""
    method, draws = Ewc(**SMALL), []
    examples = task(base, method, "rex").examples
    learner = begin(base, method, [])
    base.set_tokens(method.tokens([rex]))
    with merge(base.target_modules(), rex.deltas):
        target_modules = base.target_modules()
        hooks = [target.register_forward_hook(_from_the_text_on) for target in target_modules.values()]
        weights = [target.weight for target in target_modules.values()]

        def loss(generator: torch.Generator) -> torch.Tensor:
            batch = draw_batch(base, examples, None, 0.0, 1, generator)
            condition = base.encode_prompts(batch.prompts)
            return denoising_loss(base, batch.latents, batch.noise, batch.timesteps, condition).sum()

        generator = torch.Generator().manual_seed(5)
        for weight in weights:
            weight.requires_grad_(True)
        for _ in range(3):
            draws.append(torch.autograd.grad(loss(generator), weights))
        for weight, hook in zip(weights, hooks, strict=True):
            weight.requires_grad_(False)
            hook.remove()
        measured = _measured(learner, base, loss)
    base.set_tokens({})
    for index, target in enumerate(target_modules):
        expected = torch.stack([gradients[index].square() for gradients in draws]).mean(0)
        torch.testing.assert_close(measured[target], expected, rtol=1e-4, atol=1e-12)
        assert expected.max() > 0 and measured[target].dtype == torch.float32


def _from_the_text_on(module, inputs, output):
    return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


def _measured(learner: EwcLearner, base: Base, loss) -> dict[str, torch.Tensor]:
    from mnemon.adapters import attach

    learner.draws = 3
    with attach(base.target_modules(), learner.deltas()):
        learner.on_train_end(loss, torch.Generator().manual_seed(5))
    return dict(learner.export().extra)


def test_importance_adds_up_over_concepts_and_prices_squared_changes(base: Base, rex: TrainedConcept) -> None:
    kiki = replace(rex, name="kiki", extra={target: 2 * fisher for target, fisher in rex.extra.items()})
    learner = begin(base, Ewc(forget_weight=10.0), [rex, kiki])
    assert learner.regularization_loss().item() == 0
    expected = torch.zeros(())
    with torch.no_grad():
        for target, delta in learner.deltas().items():
            delta.values.normal_(generator=torch.Generator().manual_seed(1))
            expected = expected + 10.0 * (3 * rex.extra[target] * delta.matrix().square()).sum()
    torch.testing.assert_close(learner.regularization_loss(), expected)
    assert begin(base, Ewc(), []).regularization_loss().item() == 0


def test_with_the_squared_past_as_importance_it_is_c_lora(base: Base, rex: TrainedConcept) -> None:
    kiki = learn(base, CustomDiffusion(**SMALL), "kiki", [rex])
    past = {target: delta.matrix() for target, delta in sum_deltas([rex.deltas, kiki.deltas]).items()}
    squared = replace(rex, extra={target: matrix.square() for target, matrix in past.items()})
    ewc = begin(base, Ewc(forget_weight=1e3), [squared])
    c_lora = CLora(rank=2, forget_weight=1e3, forget_scale="sum").begin(
        Start("mug", None, base, [rex, kiki], torch.Generator().manual_seed(0))
    )
    with torch.no_grad():
        for target, delta in c_lora.deltas().items():
            delta.up.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
            ewc.deltas()[target].values.copy_(delta.matrix())
    assert c_lora.regularization_loss().item() > 0
    torch.testing.assert_close(ewc.regularization_loss(), c_lora.regularization_loss())


def test_a_concept_costs_its_changes_their_importance_and_a_vector(base: Base, rex: TrainedConcept) -> None:
    entries = sum(layer.weight.numel() for layer in base.target_modules().values())
    assert rex.stored_bytes == 2 * 4 * entries + 4 * 32
