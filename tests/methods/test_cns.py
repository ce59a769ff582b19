"""CNS: what is trained and when, what moving it costs, and what is kept of it."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon.adapters import Sparse, load_deltas, merge, save_deltas
from mnemon.errors import MnemonError
from mnemon.methods import Start, TrainedConcept, method_of_record, neuron_masks, neuron_selection
from mnemon.methods.cns import Cns, CnsLearner
from mnemon.methods.textual_inversion import TextualInversion
from mnemon.models import Base
from mnemon.training import ConceptTask, Examples, OnStep, TrainingSettings, train
from tests.contract.table import assert_same_learned, task
from tests.tiny import tiny_sd_base

SHORT: dict[str, Any] = {"steps": 4, "batch_size": 2, "draws": 6, "tau": 0.1}
AT_ONCE: dict[str, Any] = {"score": "wanda", "token_share": 0.0}
"""By text alone, before the first step."""


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def two(base: Base) -> list[TrainedConcept]:
    rex = learn(base, "rex")
    return [rex, learn(base, "kiki", [rex])]


@pytest.fixture(scope="module", autouse=True)
def few_captions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neuron_selection.importance, "CAPTIONS", 32)
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task_of(base: Base, method: Cns, name: str) -> ConceptTask:
    images = torch.randn(4, *base.latent_shape(), generator=generator())
    general = Examples(images, ["a dog", "a red cat", "a mug", "a blue car"])
    return replace(task(base, method, name), calibration=general if method.needs_calibration else None)


def learn(
    base: Base,
    name: str,
    earlier: list[TrainedConcept] | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
    **settings: Any,
) -> TrainedConcept:
    method, often = Cns(**SHORT | settings), TrainingSettings(checkpoint_seconds=0)
    return train(base, method, [task_of(base, method, name)], earlier or [], often, folder, on_step=on_step)[0]


def begin(base: Base, earlier: list[TrainedConcept] | None = None, **settings: Any) -> CnsLearner:
    return Cns(**AT_ONCE | settings).begin(Start("mug", "mug", base, earlier or [], generator()))


def selected(base: Base, earlier: list[TrainedConcept] | None = None, **settings: Any) -> CnsLearner:
    """A learner that scores by text, with its masks."""
    learner = begin(base, earlier, **settings)
    learner.on_train_start(_no_losses, None, generator())
    return learner


def _no_losses(_: torch.Generator) -> torch.Tensor:
    raise AssertionError("no image is looked at")


def moved(base: Base, earlier: list[TrainedConcept], **settings: Any) -> CnsLearner:
    """A learner whose entries are not zero any more."""
    learner = selected(base, earlier, **settings)
    learner.values.data = torch.randn(learner.values.shape, generator=generator())
    learner.before_step(generator())
    return learner


def past(base: Base, earlier: list[TrainedConcept]) -> dict[str, torch.Tensor]:
    return {target: sum(one.deltas[target].matrix() for one in earlier) for target in base.target_modules()}


# Step 1 to 3: what is selected


def test_the_mask_is_the_base_neurons_without_the_general_ones(base: Base, two: list[TrainedConcept]) -> None:
    chosen, best = selected(base, two).masks(), selected(base, two, mask="base").masks()
    general = Cns().general_by_text(base)
    for target, mask in chosen.items():
        assert int(best[target].sum()) == round(Cns.q * mask.numel())
        assert torch.equal(mask, best[target] & ~general[target])
    assert 0 < neuron_masks.entries(chosen) < neuron_masks.entries(best)


def test_base_neurons_are_those_of_the_weights_as_they_are_now(base: Base, two: list[TrainedConcept]) -> None:
    strong = {
        target: Sparse(~delta.mask, torch.ones(int((~delta.mask).sum()))) for target, delta in two[0].deltas.items()
    }
    before, after = (selected(base, known, mask="base").masks() for known in ([], [replace(two[0], deltas=strong)]))
    assert neuron_masks.both(before, after) < neuron_masks.entries(before) / 2


def test_a_random_mask_is_as_large_and_elsewhere(base: Base) -> None:
    chosen, mixed = selected(base).masks(), selected(base, mask="random").masks()
    assert all(int(mask.sum()) == int(mixed[target].sum()) for target, mask in chosen.items())
    assert neuron_masks.both(chosen, mixed) < neuron_masks.entries(chosen) / 2


def test_rows_have_equal_shares_where_rows_are_ranked(base: Base) -> None:
    for mask in selected(base, mask="base", rank_scope="row").masks().values():
        assert torch.equal(mask.sum(1), torch.full((len(mask),), round(Cns.q * mask.shape[1])))


def test_what_the_noun_scores_too_is_taken_away(base: Base) -> None:
    """Two mugs whose tokens have learned have masks of their own; untaught, both would have the noun's."""
    learners = [begin(base, mask="base", token_share=0.5) for _ in range(2)]
    for number, learner in enumerate(learners):
        learner.on_train_start(_no_losses, None, generator())
        with torch.no_grad():
            learner.token().popitem()[1].normal_(generator=generator(number))
        learner.after_step(0.25)
        assert not learner.has_selected
        learner.after_step(0.5)
    first, second = (learner.masks() for learner in learners)
    noun = selected(base, mask="base").masks()
    count = neuron_masks.entries(noun)
    assert neuron_masks.entries(first) == count
    assert neuron_masks.both(first, second) < 0.7 * count and neuron_masks.both(first, noun) < 0.7 * count


def test_the_score_of_a_token_at_its_noun_is_zero(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    top = neuron_selection.importance.top
    monkeypatch.setattr(
        neuron_selection.importance, "top", lambda scores, *rest: seen.append(scores) or top(scores, *rest)
    )
    for score in ("wanda", "grad"):
        learn(base, "rex", score=score, mask="base", token_lr=1e-12, learning_rate=1e-9)
    for scores in seen:
        assert all(score.abs().max() < 1e-5 for score in scores.values())


def test_what_is_general_does_not_depend_on_earlier_concepts(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    voted = neuron_selection.importance.voted
    monkeypatch.setattr(neuron_selection.importance, "voted", lambda *told: seen.append(voted(*told)) or seen[-1])
    rex = learn(base, "rex", score="grad")
    kiki = learn(base, "kiki", [rex], score="grad", learning_rate=0.1)
    learn(base, "mug", [kiki, rex], score="grad")
    assert len(seen) == 3 and neuron_masks.entries(seen[0]) > 0
    for other in seen[1:]:
        assert all(torch.equal(mask, other[target]) for target, mask in seen[0].items())


def test_gradients_need_images_of_diverse_things_where_general_neurons_go(base: Base) -> None:
    assert [Cns(score="grad").needs_calibration, Cns(score="grad", mask="base").needs_calibration] == [True, False]
    assert not Cns(score="wanda").needs_calibration
    method = Cns(**SHORT, score="grad")
    with pytest.raises(MnemonError, match="give `calibration`"):
        train(base, method, [task(base, method, "rex")])
    assert all(not layer._forward_hooks for layer in base.target_modules().values())


def test_settings_that_leave_nothing_to_train_are_refused(base: Base) -> None:
    with pytest.raises(MnemonError, match="All base neurons of 'mug' are general"):
        selected(base, p=1.0)
    with pytest.raises(MnemonError, match="expected a share"):
        Cns(q=1.5)
    with pytest.raises(MnemonError, match="'token_share' is 1.0; expected 0 or more, and less than 1"):
        Cns(token_share=1.0)


# The token learns first


@pytest.mark.parametrize("score", ["wanda", "grad"])
def test_the_token_learns_alone_and_goes_on(base: Base, score: str) -> None:
    """At a share of a half it is after two of four steps where textual inversion is, and no weight has moved."""
    early = learn(base, "rex", score=score, steps=2, token_share=0.99)
    plain = TextualInversion(steps=2, batch_size=2, num_vectors=3, token_init="class_noun", use_class_noun=True)
    alone = train(base, plain, [task(base, plain, "rex")])[0]
    assert torch.equal(early.tokens["text_encoder"], alone.tokens["text_encoder"])
    assert not any(delta.matrix().any() for delta in early.deltas.values())
    late = learn(base, "rex", score=score, token_share=0.5)
    assert all(delta.values.all() for delta in late.deltas.values())
    assert not torch.equal(late.tokens["text_encoder"], early.tokens["text_encoder"])


@pytest.mark.parametrize("score", ["wanda", "grad"])
@pytest.mark.parametrize("killed", [1, 2, 3, 4], ids=["before", "at", "after", "at the end"])
def test_a_run_goes_on_bit_for_bit_around_the_selection(
    base: Base, two: list[TrainedConcept], tmp_path: Path, score: str, killed: int
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == killed:
            raise KeyboardInterrupt

    settings = {"score": score, "token_share": 0.5}
    with pytest.raises(KeyboardInterrupt):
        learn(base, "mug", two, tmp_path, stop, **settings)
    seen: list[int] = []
    resumed = learn(base, "mug", two, tmp_path, lambda step, *_: seen.append(step), **settings)
    assert seen == list(range(killed + 1, 5))
    assert_same_learned(resumed, learn(base, "mug", two, **settings))


def test_a_concept_kept_before_the_selection_is_its_token(base: Base) -> None:
    kept = begin(base, token_share=0.5).export()
    assert kept.facts == {"mask_density": 0.0}
    assert not any(delta.matrix().any() for delta in load_deltas(save_deltas(kept.deltas)).values())


def test_the_token_starts_at_the_noun_and_is_followed_by_it(base: Base) -> None:
    learner = begin(base, num_vectors=2)
    noun = base.word_embeddings("mug")["text_encoder"]
    assert torch.equal(learner.tokens()["text_encoder"], noun.repeat(2, 1))
    assert Cns().prompt_name("rex", "dog") == "<rex> dog" and Cns().prompt_name("rex", None) == "<rex>"
    assert dict(base.tokens) == {}


# Step 4: training, and what it costs


@pytest.mark.parametrize("reg", ["owned+free", "c-lora"])
def test_entries_outside_the_mask_stay_bit_for_bit(base: Base, two: list[TrainedConcept], reg: str) -> None:
    """AdamW would move them by its momentum and decay if it had them; it has no state for them."""
    before = {target: layer.weight.clone() for target, layer in base.target_modules().items()}
    learned = learn(base, "mug", two, reg=reg)
    with merge(base.target_modules(), learned.deltas):
        for target, layer in base.target_modules().items():
            mask = neuron_masks.stored_masks(learned)[target]
            assert torch.equal(layer.weight[~mask], before[target][~mask])
            assert (layer.weight[mask] != before[target][mask]).all()


@pytest.mark.parametrize("scale", ["relative", "sum"])
def test_the_regulariser_against_whole_matrices(base: Base, two: list[TrainedConcept], scale: str) -> None:
    """All forms, with U, M and the changes as dense (d_out, d_in) matrices."""
    owned, gone = neuron_masks.union(two, neuron_masks.stored_masks(two[0])), past(base, two)
    learner = moved(base, two)
    earlier, start, free, lora = torch.zeros(4, dtype=torch.float64)
    for target, delta in learner.deltas().items():
        unit = learner.bare[target].square().mean().sqrt() if scale == "relative" else 1.0
        mask, change, before = learner.masks()[target], delta.matrix().detach() / unit, gone[target] / unit
        earlier += (owned[target] * mask * change).square().sum()
        start += (mask * (before + change)).square().sum()
        free += (~owned[target] * mask * (before + change)).square().sum()
        lora += (before.abs() * mask * change).square().sum()
    assert min(earlier, free, lora) > 0
    sums = {
        "owned+free": earlier + 0.25 * free,
        "earlier+base": earlier + 0.25 * start,
        "earlier": earlier,
        "c-lora": lora,
    }
    count = neuron_masks.entries(learner.masks()) if scale == "relative" else 1
    for reg, value in (sums | {"none": torch.zeros(())}).items():
        loss = moved(base, two, reg=reg, forget_scale=scale, forget_weight=3.0, base_weight=0.25).regularization_loss()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.item(), 3.0 * value.item() / count, rtol=1e-4, atol=0)


def test_the_regulariser_holds_what_earlier_concepts_own_as_it_is(base: Base, two: list[TrainedConcept]) -> None:
    """In the earlier form it pulls them back, half of the way to W_0."""
    pulls = {}
    for reg in ("owned+free", "earlier+base"):
        learner = selected(base, two, reg=reg)
        learner.regularization_loss().backward()
        assert learner.owned.any() and learner.moved[learner.owned > 0].any()
        pulls[reg] = learner.values.grad[: len(learner.owned)][learner.owned > 0].abs().max()
    assert pulls["owned+free"] == 0 and pulls["earlier+base"] > 0


def test_the_regulariser_has_no_unit(base: Base, two: list[TrainedConcept]) -> None:
    """Weights and changes ten times as large, ten times as many of them: it is the same."""
    learner = moved(base, two)
    before = learner.regularization_loss()
    for tensor in (learner.values.data, learner.moved, learner.unit):
        tensor.mul_(10)
    torch.testing.assert_close(learner.regularization_loss(), before)


def test_the_regulariser_is_zero_at_the_pretrained_weights(base: Base) -> None:
    assert selected(base).regularization_loss().item() == 0
    assert moved(base, [], base_weight=0.0).regularization_loss().item() == 0  # no earlier concept


# What is kept


def test_a_mask_is_trained_whole_and_repeats(base: Base) -> None:
    for score in ("wanda", "grad"):
        first, again = (learn(base, "rex", score=score) for _ in range(2))
        assert_same_learned(first, again)
        masks = neuron_masks.stored_masks(first)
        size = sum(mask.numel() for mask in masks.values())
        assert 0 < first.facts["mask_density"] == neuron_masks.entries(masks) / size <= Cns.q
        assert all((delta.values != 0).all() for delta in first.deltas.values())


def test_bytes_and_fraction_are_exact(base: Base, two: list[TrainedConcept]) -> None:
    pipeline = base.pipeline()
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    everything = sum(parameter.numel() for part in parts for parameter in part.parameters())
    vectors = 32 * Cns.num_vectors
    for one in two:
        masks = neuron_masks.stored_masks(one)
        counts = {target: int(mask.sum()) for target, mask in masks.items()}
        packed = sum(ceil(mask.numel() / 8) + 4 * counts[target] + 2 * 8 for target, mask in masks.items())
        assert one.stored_bytes == packed + 4 * vectors
        changed = sum(int((delta.matrix() != 0).sum()) for delta in one.deltas.values()) + vectors
        general = one.facts["general_share"]
        room = sum(round(Cns.q * mask.numel()) for mask in masks.values())
        assert changed / everything == pytest.approx((room * (1 - general) + vectors) / everything)
        loaded = load_deltas(save_deltas(one.deltas))
        assert all(isinstance(delta, Sparse) and torch.equal(delta.mask, masks[s]) for s, delta in loaded.items())


def test_no_concept_can_change_more_than_15_of_10_000_weights_of_stable_diffusion() -> None:
    """Even if no base neuron were general; the sizes are counted in `test_cns_size.py`."""
    weights = 859_520_964 + 83_653_863 + 123_060_480
    assert Cns.q * 19_169_280 + Cns.num_vectors * 768 <= 0.0015 * weights


def test_the_facts_say_how_concepts_overlap(two: list[TrainedConcept]) -> None:
    share = neuron_masks.mask_overlap(two)[1][1, 0].item()
    assert two[0].facts["shared_with"] == {} and two[0].facts["shared"] == 0
    assert two[1].facts["shared_with"] == {"rex": share}
    assert two[1].facts["shared"] == pytest.approx(share) and share > 0


def test_a_library_that_knows_no_new_setting_is_gone_on_with_as_before() -> None:
    method = method_of_record("cns", {"q": 0.1, "forget_weight": 2e-3})
    assert (method.q, method.forget_weight, method.token_share, method.forget_scale) == (0.1, 2e-3, 0.0, "sum")
    assert (method.score, method.reg, method.token_lr, method.num_vectors) == ("wanda", "earlier+base", 1e-3, 1)
