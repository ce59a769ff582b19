"""Orthogonal Adaptation: a shared basis, columns of it for every concept, and no crosstalk where they differ."""

import pytest
import torch

from mnemon.adapters import LowRank
from mnemon.errors import MnemonError
from mnemon.methods import Start, TrainedConcept
from mnemon.methods.orthogonal_adaptation import OrthogonalAdaptation, shared_basis
from mnemon.models import Base
from tests.contract.table import learn
from tests.tiny import tiny_sd_base, tiny_sdxl_base

SMALL = {"rank": 2, "steps": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def columns(learned: TrainedConcept) -> set[tuple[int, int]]:
    """Width and number of the basis columns that a concept has at any target module."""
    found = set()
    for delta in learned.deltas.values():
        assert isinstance(delta, LowRank)
        width = delta.down.shape[1]
        match = (delta.down.data @ shared_basis(width, seed=0).float()).abs() > 0.999
        assert (match.sum(1) == 1).all()  # every row of `down` is one column of O
        found |= {(width, int(column)) for column in match.int().argmax(1)}
    return found


def test_the_basis_is_orthonormal_and_comes_from_the_seed_bit_for_bit() -> None:
    basis = shared_basis(192, seed=3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(192, dtype=basis.dtype), atol=1e-12, rtol=0)
    assert torch.equal(basis, shared_basis(192, seed=3))
    assert not torch.allclose(basis, shared_basis(192, seed=4))


def test_columns_come_from_the_name_alone_and_only_the_rest_is_trained(base: Base) -> None:
    method = OrthogonalAdaptation(**SMALL)
    rex, kiki = learn(base, method, "rex"), learn(base, method, "kiki")
    assert len(columns(rex)) == method.rank
    assert columns(rex) == columns(learn(base, method, "rex", [kiki], seed=5)) != columns(kiki)
    before = method.begin(Start("rex", "dog", base, [], torch.Generator().manual_seed(0))).deltas()
    for target, delta in rex.deltas.items():
        assert isinstance(delta, LowRank) and delta.up.abs().max() > 1e-4
        assert torch.equal(delta.down, before[target].down)


def test_disjoint_columns_have_no_crosstalk(base: Base) -> None:
    method = OrthogonalAdaptation(**SMALL, disjoint=True)
    rex = learn(base, method, "rex")
    kiki = learn(base, method, "kiki", [rex])
    for target, delta in kiki.deltas.items():
        assert isinstance(delta, LowRank)
        own = delta.down.data.T  # inputs within the span of B_kiki
        assert (rex.deltas[target].matrix() @ own).abs().max() < 1e-6
        torch.testing.assert_close(delta.matrix() @ own, delta.up.data, atol=1e-6, rtol=0)


def test_disjoint_columns_are_given_together_taken_again_and_run_out(base: Base) -> None:
    method = OrthogonalAdaptation(rank=15, disjoint=True)  # the tiny base reads 32 columns: two concepts
    seeds = [torch.Generator().manual_seed(seed) for seed in range(2)]
    starts = [Start(name, None, base, [], seed) for name, seed in zip(("rex", "kiki"), seeds, strict=True)]
    rex, kiki = (one.export() for one in method.begin_together(starts))
    assert not columns(rex) & columns(kiki)
    again = method.begin(Start("mug", None, base, [kiki], seeds[0])).export()  # rex was removed
    assert columns(again) == columns(rex)
    with pytest.raises(MnemonError, match="2 concepts"):
        method.begin(Start("mug", None, base, [rex, kiki], seeds[0]))
    with pytest.raises(MnemonError, match="rex.*mug|mug.*rex"):
        method.compose(base, [rex, kiki, again])


def test_the_merge_is_the_weighted_sum_in_any_order(base: Base) -> None:
    method = OrthogonalAdaptation(**SMALL, merge_weight=0.6)
    learned = [learn(base, method, name) for name in ("rex", "kiki", "mug")]
    merged, turned = method.compose(base, learned), method.compose(base, learned[::-1])
    for target, delta in merged.items():
        expected = 0.6 * torch.stack([one.deltas[target].matrix() for one in learned]).sum(0)
        torch.testing.assert_close(delta.matrix(), expected, atol=1e-7, rtol=0)
        torch.testing.assert_close(delta.matrix(), turned[target].matrix(), atol=1e-7, rtol=0)


def test_a_basis_cannot_have_more_columns_than_inputs() -> None:
    with pytest.raises(MnemonError, match="rank"):
        OrthogonalAdaptation(rank=33).begin(Start("rex", None, tiny_sd_base(), [], torch.Generator().manual_seed(0)))


def test_it_works_on_a_base_with_two_text_encoders() -> None:
    learned = learn(tiny_sdxl_base(), OrthogonalAdaptation(**SMALL), "rex", steps=1)
    assert {width for width, _ in columns(learned)} == {32 + 16}
