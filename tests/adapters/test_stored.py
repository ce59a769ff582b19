"""Changes that stay in their files give the same bits as those in memory."""

import pytest
import torch

from mnemon.adapters import (
    Dense,
    LowRank,
    MaskedLowRank,
    Sparse,
    StoredDeltas,
    SummedDeltas,
    merge,
    save_deltas,
    sum_deltas,
)
from mnemon.errors import MnemonError
from mnemon.tensor_files import write_safetensors


def _changes(seed):
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator)
    mask = torch.rand(6, 5, generator=generator) > 0.5
    changes = {"a": LowRank(up, down, scale=0.3), "d": Dense(up @ down)}
    changes["b.c"] = MaskedLowRank(up.clone(), down.clone(), mask)
    return changes | ({"only.second": Sparse.from_matrix((up @ down) * mask)} if seed == 2 else {})


def test_sums_of_stored_changes_are_those_in_memory_bit_for_bit(tmp_path):
    sets = [_changes(seed) for seed in (1, 2, 3)]
    for number, changes in enumerate(sets):
        write_safetensors(tmp_path / f"{number}.safetensors", save_deltas(changes))
    stored = [StoredDeltas(tmp_path / f"{number}.safetensors") for number in range(3)]
    expected = sum_deltas(sets)
    total = SummedDeltas(stored)
    assert set(total) == set(expected) and len(total) == 4
    assert all(torch.equal(total[target].values, expected[target].values) for target in expected)
    layers = {target: torch.nn.Linear(5, 6, bias=False) for target in expected}
    before = {target: layer.weight.data for target, layer in layers.items()}
    with merge(layers, total):
        assert all(
            torch.equal(layer.weight, before[target] + expected[target].values) for target, layer in layers.items()
        )
    assert all(torch.equal(layer.weight, before[target]) for target, layer in layers.items())


def test_a_layer_that_does_not_fit_is_refused_before_anything_is_merged():
    layers = {"a": torch.nn.Linear(5, 6), "d": torch.nn.Linear(4, 4)}
    before = layers["a"].weight.clone()
    with pytest.raises(MnemonError, match="'d'"):
        merge(layers, SummedDeltas([{name: _changes(1)[name] for name in ("a", "d")}]))
    assert torch.equal(layers["a"].weight, before)


def test_a_sum_is_in_memory_of_its_own():
    changes = {"d": Dense(torch.ones(2, 2))}
    SummedDeltas([changes])["d"].values.zero_()
    assert torch.equal(changes["d"].values, torch.ones(2, 2))
