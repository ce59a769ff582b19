"""CNS: which entries are trained, what moving them costs, and what is kept of them."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Any

import pytest
import torch

from mnemon.adapters import Sparse, load_deltas, merge, save_deltas
from mnemon.errors import MnemonError
from mnemon.methods import Start, TrainedConcept, cns, importance
from mnemon.methods.cns import Cns, CnsLearner
from mnemon.models import Base
from mnemon.training import Examples, train
from tests.contract.table import assert_same_learned, learn, task
from tests.tiny import tiny_sd_base

SHORT: dict[str, Any] = {"steps": 4, "batch_size": 2}
GRAD: dict[str, Any] = {**SHORT, "score": "grad", "tau": 0.1}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def two(base: Base) -> list[TrainedConcept]:
    rex = learn(base, Cns(**SHORT), "rex")
    return [rex, learn(base, Cns(**SHORT), "kiki", [rex])]


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cns, "DRAWS", 6)
        patch.setattr(importance, "CAPTIONS", 32)
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(base: Base, method: Cns, earlier: list[TrainedConcept] | None = None) -> CnsLearner:
    return method.begin(Start("mug", "mug", base, earlier or [], generator()))


def moved(base: Base, method: Cns, earlier: list[TrainedConcept]) -> CnsLearner:
    """A learner whose entries are not zero any more."""
    learner = begin(base, method, earlier)
    learner.values.data = torch.randn(learner.values.shape, generator=generator())
    learner.before_step(generator())
    return learner


def past(base: Base, earlier: list[TrainedConcept]) -> dict[str, torch.Tensor]:
    return {target: sum(one.deltas[target].matrix() for one in earlier) for target in base.target_modules()}


def by_gradient(base: Base, name: str, earlier: list[TrainedConcept], **settings: Any) -> TrainedConcept:
    method, images = Cns(**GRAD | settings), torch.randn(4, *base.latent_shape(), generator=generator())
    general = Examples(images, ["a dog", "a red cat", "a mug", "a blue car"])
    return train(base, method, [replace(task(base, method, name), calibration=general)], earlier)[0]


def test_the_mask_is_the_base_neurons_without_the_general_ones(base: Base, two: list[TrainedConcept]) -> None:
    chosen, best = begin(base, Cns(), two).masks, begin(base, Cns(mask="base"), two).masks
    general = importance.general_by_text(base, Cns.p, Cns.tau, "layer")
    for target, mask in chosen.items():
        assert int(best[target].sum()) == round(Cns.q * mask.numel())
        assert torch.equal(mask, best[target] & ~general[target])
    assert 0 < importance.entries(chosen) < importance.entries(best)


def test_base_neurons_are_those_of_the_weights_as_they_are_now(base: Base, two: list[TrainedConcept]) -> None:
    strong = {
        target: Sparse(~delta.mask, torch.ones(int((~delta.mask).sum()))) for target, delta in two[0].deltas.items()
    }
    before, after = (begin(base, Cns(mask="base"), known).masks for known in ([], [replace(two[0], deltas=strong)]))
    assert importance.both(before, after) < importance.entries(before) / 2


def test_a_random_mask_is_as_large_and_elsewhere(base: Base) -> None:
    chosen, mixed = begin(base, Cns()).masks, begin(base, Cns(mask="random")).masks
    assert all(int(mask.sum()) == int(mixed[target].sum()) for target, mask in chosen.items())
    assert importance.both(chosen, mixed) < importance.entries(chosen) / 2


def test_rows_have_equal_shares_where_rows_are_ranked(base: Base) -> None:
    for mask in begin(base, Cns(mask="base", rank_scope="row")).masks.values():
        assert torch.equal(mask.sum(1), torch.full((len(mask),), round(Cns.q * mask.shape[1])))


@pytest.mark.parametrize("reg", ["earlier+base", "c-lora"])
def test_entries_outside_the_mask_stay_bit_for_bit(base: Base, two: list[TrainedConcept], reg: str) -> None:
    """AdamW would move them by its momentum and decay if it had them; it has no state for them."""
    before = {target: layer.weight.clone() for target, layer in base.target_modules().items()}
    learned = learn(base, Cns(**SHORT, reg=reg), "mug", two)
    with merge(base.target_modules(), learned.deltas):
        for target, layer in base.target_modules().items():
            mask = importance.stored_masks(learned)[target]
            assert torch.equal(layer.weight[~mask], before[target][~mask])
            assert (layer.weight[mask] != before[target][mask]).all()
    learner = begin(base, Cns(), two)
    assert learner.values.numel() == importance.entries(learner.masks) < Cns.q * sum(m.numel() for m in before.values())


def test_the_regulariser_against_whole_matrices(base: Base, two: list[TrainedConcept]) -> None:
    """All four forms, with U, M and the changes as dense (d_out, d_in) matrices, summed over all layers."""
    taken = importance.union(two, importance.stored_masks(two[0]))
    gone = past(base, two)
    learner = moved(base, Cns(), two)
    earlier, start, lora = torch.zeros(3, dtype=torch.float64)
    for target, delta in learner.deltas().items():
        mask, change = learner.masks[target], delta.matrix().detach()
        earlier += (taken[target] * mask * change).square().sum()
        start += (mask * (gone[target] + change)).square().sum()
        lora += (gone[target].abs() * change).square().sum()
    assert earlier > 0 and lora > 0
    expected = {"earlier+base": earlier + 0.25 * start, "earlier": earlier, "c-lora": lora, "none": torch.zeros(())}
    for reg, value in expected.items():
        regularization_loss = moved(base, Cns(reg=reg, forget_weight=3.0, base_weight=0.25), two).regularization_loss()
        assert regularization_loss.dtype == torch.float32
        torch.testing.assert_close(regularization_loss.item(), 3.0 * value.item(), rtol=1e-5, atol=0)


def test_the_regulariser_is_zero_at_the_pretrained_weights(base: Base) -> None:
    assert begin(base, Cns()).regularization_loss().item() == 0
    assert moved(base, Cns(base_weight=0.0), []).regularization_loss().item() == 0  # no earlier concept


def test_what_is_general_does_not_depend_on_earlier_concepts(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    voted = importance.voted
    monkeypatch.setattr(importance, "voted", lambda *told: seen.append(voted(*told)) or seen[-1])
    rex = by_gradient(base, "rex", [])
    kiki = by_gradient(base, "kiki", [rex], learning_rate=0.1)
    by_gradient(base, "mug", [kiki, rex])
    assert len(seen) == 3 and importance.entries(seen[0]) > 0
    for other in seen[1:]:
        assert all(torch.equal(mask, other[target]) for target, mask in seen[0].items())


def test_a_mask_from_gradients_is_trained_and_repeats(base: Base) -> None:
    first, again = (by_gradient(base, "rex", []) for _ in range(2))
    assert_same_learned(first, again)
    masks = importance.stored_masks(first)
    size = sum(mask.numel() for mask in masks.values())
    assert 0 < first.facts["mask_density"] == importance.entries(masks) / size <= Cns.q
    assert all((delta.values != 0).all() for delta in first.deltas.values())
    by_text = importance.stored_masks(learn(base, Cns(**SHORT), "rex"))
    assert any(not torch.equal(mask, by_text[target]) for target, mask in masks.items())


def test_gradients_need_images_of_diverse_things_where_general_neurons_go(base: Base) -> None:
    assert [Cns(score="grad").needs_calibration, Cns(score="grad", mask="base").needs_calibration] == [True, False]
    assert not Cns().needs_calibration
    with pytest.raises(MnemonError, match="give `calibration`"):
        train(base, Cns(**GRAD), [task(base, Cns(), "rex")])
    assert all(not layer._forward_hooks for layer in base.target_modules().values())


def test_bytes_and_fraction_are_exact(base: Base, two: list[TrainedConcept]) -> None:
    pipeline = base.pipeline()
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    everything = sum(parameter.numel() for part in parts for parameter in part.parameters())
    for one in two:
        masks = importance.stored_masks(one)
        counts = {target: int(mask.sum()) for target, mask in masks.items()}
        packed = sum(ceil(mask.numel() / 8) + 4 * counts[target] + 2 * 8 for target, mask in masks.items())
        assert one.stored_bytes == packed + 4 * 32  # and the token's vector
        changed = sum(int((delta.matrix() != 0).sum()) for delta in one.deltas.values()) + 32
        general = one.facts["general_share"]
        selected = sum(round(Cns.q * mask.numel()) for mask in masks.values())
        assert changed / everything == pytest.approx((selected * (1 - general) + 32) / everything)
        loaded = load_deltas(save_deltas(one.deltas))
        assert all(isinstance(delta, Sparse) and torch.equal(delta.mask, masks[s]) for s, delta in loaded.items())


def test_no_concept_can_change_more_than_15_of_10_000_weights_of_stable_diffusion() -> None:
    """Even if no base neuron were general; the sizes are counted in `test_cns_size.py`."""
    assert Cns.q * 19_169_280 + 768 <= 0.0015 * (859_520_964 + 83_653_863 + 123_060_480)


def test_the_facts_say_how_concepts_overlap(two: list[TrainedConcept]) -> None:
    share = importance.mask_overlap(two)[1][1, 0].item()
    assert two[0].facts["shared_with"] == {} and two[0].facts["shared"] == 0
    assert two[1].facts["shared_with"] == {"rex": share}
    assert two[1].facts["shared"] == pytest.approx(share) and share > 0


def test_the_token_starts_at_the_noun_and_is_followed_by_it(base: Base) -> None:
    assert torch.equal(begin(base, Cns()).tokens()["text_encoder"][0], base.word_embeddings("mug")["text_encoder"])
    assert Cns().prompt_name("rex", "dog") == "<rex> dog" and Cns().prompt_name("rex", None) == "<rex>"
    assert dict(base.tokens) == {}


def test_settings_that_leave_nothing_to_train_are_refused(base: Base) -> None:
    with pytest.raises(MnemonError, match="All base neurons of 'mug' are general"):
        begin(base, Cns(p=1.0))
    with pytest.raises(MnemonError, match="expected a share"):
        Cns(q=1.5)
