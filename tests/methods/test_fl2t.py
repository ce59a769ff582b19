"""FL2T's two steps: who takes part with what, what does not depend on order, and the special cases."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon.methods import Start, TrainedConcept
from mnemon.methods.fl2t import EMBEDDING, PROXY, Fl2t, Fl2tLearner
from mnemon.methods.overlap import overlaps
from mnemon.models import Base
from mnemon.training import TrainingSettings, train
from tests.contract.table import assert_same_learned, learn, task
from tests.tiny import tiny_sd_base, tiny_sdxl_base

SHORT: dict[str, Any] = {"rank": 2, "steps": 4, "batch_size": 2}
HALVES = torch.full((2,), 0.5)
"""The shares of a concept's two prompts."""


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def earlier(base: Base) -> list[TrainedConcept]:
    return learn_together(base, Fl2t(**SHORT), ["rex", "kiki"])


def learn_together(
    base: Base, method: Fl2t, names: Sequence[str], earlier: Sequence[TrainedConcept] = (), **more: Any
) -> list[TrainedConcept]:
    return train(base, method, [task(base, method, name) for name in names], earlier, **more)


def begin(base: Base, method: Fl2t, names: Sequence[str], earlier: Sequence[TrainedConcept]) -> list[Fl2tLearner]:
    """Learners whose factors are not zero any more, at the beginning of step 2."""
    generators = [torch.Generator().manual_seed(sum(map(ord, name))) for name in names]
    learners = method.begin_together(
        [Start(name, None, base, earlier, generator) for name, generator in zip(names, generators, strict=True)]
    )
    for learner, generator in zip(learners, generators, strict=True):
        with torch.no_grad():
            for delta in learner.deltas().values():
                delta.up.normal_(0, 0.1, generator=generator)
    learners[0].begin_joint_stage()
    return learners


def text(base: Base) -> torch.Tensor:
    return torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))


def regularization_loss(learner: Fl2tLearner, number: int, base: Base) -> torch.Tensor:
    """Of the run's concept `number` alone."""
    return learner.joint_loss(text(base), None, torch.tensor([number, number]), HALVES)


def test_the_penalty_in_closed_form(base: Base, earlier: list[TrainedConcept]) -> None:
    """gamma_1' mean over the others and the target modules of l_i mean |A_i A_g^T|, and gamma_2 R3."""
    method = Fl2t(**SHORT, relevance_weight=2.0, contrast_weight=3.0)
    mug, hat = begin(base, method, ["hat", "mug"], earlier)
    concepts = mug.concepts
    assert concepts.names == ["hat", "kiki", "mug", "rex"]
    decoded, states = concepts.decode(text(base), None)
    weights, apart = mug.relevance(0, states).mean(0), mug.contrast(decoded, states).mean()
    known = {one.name: one.deltas for one in earlier} | {"mug": hat.deltas()}
    expected = sum(
        weights[concepts.names.index(name)] * (deltas[target].up @ delta.up.T).abs().mean()
        for name, deltas in known.items()
        for target, delta in mug.deltas().items()
    )
    torch.testing.assert_close(
        regularization_loss(mug, 0, base), 2.0 * expected / (3 * len(base.target_modules())) + 3.0 * apart
    )


def test_the_penalty_of_a_step_is_the_sum_over_its_concepts(base: Base, earlier: list[TrainedConcept]) -> None:
    """Rows of several concepts are related in one pass, and none depends on the others'."""
    hat, _ = begin(base, Fl2t(**SHORT, relevance_weight=2.0), ["hat", "mug"], earlier)
    both = hat.joint_loss(text(base).repeat(2, 1, 1), None, torch.tensor([0, 0, 1, 1]), HALVES.repeat(2))
    torch.testing.assert_close(both, regularization_loss(hat, 0, base) + regularization_loss(hat, 1, base))


def test_without_guidance_every_concept_counts_one_and_no_network_is_trained(
    base: Base, earlier: list[TrainedConcept]
) -> None:
    (learner,) = begin(base, Fl2t(**SHORT, guidance="none", relevance_weight=1.0), ["mug"], earlier)
    ups = {target: delta.up for target, delta in learner.deltas().items()}
    expected = [
        overlaps(up, one.deltas[target].up.detach()[None], "absolute") for one in earlier for target, up in ups.items()
    ]
    torch.testing.assert_close(regularization_loss(learner, 0, base), torch.stack(expected).mean())
    assert not list(learner.concepts.parameters())


def test_cosine_guidance_weighs_by_the_embeddings_of_step_1(base: Base, earlier: list[TrainedConcept]) -> None:
    (learner,) = begin(base, Fl2t(**SHORT, guidance="cosine"), ["mug"], earlier)
    (weights,) = learner.relevance(0, None)
    embedding = learner.encoding().mean((0, 1))
    kiki, rex = (torch.cosine_similarity(embedding, one.extra[EMBEDDING], dim=0) for one in reversed(earlier))
    torch.testing.assert_close(weights, torch.stack([kiki, torch.zeros(()), rex]).clamp_min(0))


@pytest.mark.parametrize("guidance", ["proxy", "cosine", "none"])
def test_the_order_of_concepts_changes_nothing(base: Base, earlier: list[TrainedConcept], guidance: str) -> None:
    if guidance != "proxy":
        earlier = [replace(one, extra={k: t for k, t in one.extra.items() if k != PROXY}) for one in earlier]
    method = Fl2t(**SHORT, guidance=guidance, relevance_weight=10.0)
    straight = learn_together(base, method, ["mug", "hat"], earlier)
    turned = learn_together(base, method, ["hat", "mug"], earlier[::-1])[::-1]
    for left, right in zip(straight, turned, strict=True):
        assert_same_learned(left, right)


def test_step_1_is_what_each_concept_would_learn_alone(base: Base, earlier: list[TrainedConcept]) -> None:
    """With nothing but step 1, a concept alone and one after others are the same."""
    method = Fl2t(**SHORT, share=1.0)
    alone = learn(base, method, "mug")
    after = learn(base, method, "mug", earlier)
    assert alone.facts["relevance"] == {} and sorted(after.facts["relevance"]) == ["kiki", "rex"]
    assert_same_learned(alone, replace(after, facts=alone.facts))
    torch.testing.assert_close(alone.extra[EMBEDDING], alone.extra[PROXY])
    assert alone.facts["factor_norm"] == alone.facts["factor_norm_apart"]
    guarded = learn(base, Fl2t(**SHORT, share=0.5, relevance_weight=100.0), "mug", earlier)
    assert guarded.facts["factor_norm"] < alone.facts["factor_norm"]


def test_in_step_2_the_others_stay_as_step_1_left_them(base: Base) -> None:
    """What the factors of the run's other concepts become later does not matter to a concept's penalty."""
    hat, mug = begin(base, Fl2t(**SHORT), ["hat", "mug"], [])
    before = regularization_loss(hat, 0, base)
    with torch.no_grad():
        for delta in mug.deltas().values():
            delta.up.mul_(2)
    assert torch.equal(before, regularization_loss(hat, 0, base))
    assert not torch.equal(before, regularization_loss(hat, 1, base))


def test_the_network_is_held_once_and_is_not_stored(base: Base) -> None:
    learners = begin(base, Fl2t(**SHORT), ["hat", "mug", "rex"], [])
    assert [sum(name.startswith("concepts") for name, _ in one.named_parameters()) > 0 for one in learners] == [
        True,
        False,
        False,
    ]
    assert [len(one.parameter_groups()) for one in learners] == [3, 2, 2]
    for one in learners:
        assert {key: tuple(tensor.shape) for key, tensor in one.export().extra.items()} == {
            "encoding": (len(base.cross_attention_layers()), 2, 32),
            EMBEDDING: (32,),
            PROXY: (32,),
        }


def test_the_features_of_two_text_encoders_are_concatenated() -> None:
    """SDXL's target modules hear both encoders' features side by side; concepts relate in that width."""
    base = tiny_sdxl_base()
    rex = learn(base, Fl2t(**SHORT), "rex")
    kiki = learn(base, Fl2t(**SHORT), "kiki", [rex])
    assert rex.extra[EMBEDDING].shape == kiki.extra[PROXY].shape == (48,)
    base.set_tokens(Fl2t().tokens([rex, kiki]))
    composed = Fl2t().compose(base, [rex, kiki], "a photo of <kiki>")
    assert all(composed[target].shape == tuple(layer.weight.shape) for target, layer in base.target_modules().items())


@pytest.mark.parametrize("learns", [True, False])
def test_the_gradient_of_r1_reaches_the_network_only_if_it_shall(
    base: Base, earlier: list[TrainedConcept], learns
) -> None:
    method = Fl2t(**SHORT, lambda_grad=learns, contrast_weight=0.0)
    (learner,) = begin(base, method, ["mug"], earlier)
    regularization_loss(learner, 0, base).backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in learner.concepts.parameters()]
    assert any(reached) == learns
    assert all(delta.up.grad.any() for delta in learner.deltas().values())


@pytest.mark.parametrize("killed", [1, 3])
def test_several_concepts_go_on_after_a_kill_in_either_step(
    tmp_path: Path, base: Base, earlier: list[TrainedConcept], killed: int
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == killed:
            raise KeyboardInterrupt

    method, settings = Fl2t(**SHORT), TrainingSettings(checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        learn_together(base, method, ["mug", "hat"], earlier, settings=settings, folder=tmp_path, on_step=stop)
    seen: list[int] = []
    resumed = learn_together(
        base,
        method,
        ["mug", "hat"],
        earlier,
        settings=settings,
        folder=tmp_path,
        on_step=lambda step, *_: seen.append(step),
    )
    assert seen[0] == killed + 1
    for left, right in zip(resumed, learn_together(base, method, ["mug", "hat"], earlier), strict=True):
        assert_same_learned(left, right)
