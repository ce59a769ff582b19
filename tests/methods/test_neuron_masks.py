"""Masks of neurons: their size, overlap and union."""

import torch

from mnemon.adapters import Sparse
from mnemon.methods import TrainedConcept, neuron_masks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_mask(name: str, *rows: list[int]) -> TrainedConcept:
    mask = torch.tensor(rows).bool()
    return TrainedConcept(name, None, {"site": Sparse(mask, torch.ones(int(mask.sum())))}, {})


def test_a_shuffled_mask_keeps_its_number_of_entries() -> None:
    masks = {"site": torch.arange(1000).view(20, 50) < 100}
    mixed = neuron_masks.shuffled(masks, generator())
    assert neuron_masks.entries(mixed) == 100 and neuron_masks.both(masks, mixed) < 50
    assert torch.equal(mixed["site"], neuron_masks.shuffled(masks, generator())["site"])


def test_the_union_only_grows() -> None:
    like = {"site": torch.zeros(2, 3, dtype=torch.bool)}
    learned = [
        with_mask("a", [1, 0, 0], [0, 0, 1]),
        with_mask("b", [1, 1, 0], [0, 0, 0]),
        with_mask("c", [0] * 3, [0] * 3),
    ]
    unions = [neuron_masks.union(learned[:count], like) for count in range(4)]
    assert [neuron_masks.entries(one) for one in unions] == [0, 2, 3, 3]
    for smaller, larger in zip(unions, unions[1:], strict=False):
        assert neuron_masks.both(smaller, larger) == neuron_masks.entries(smaller)


def test_the_overlap_of_masks() -> None:
    learned = [with_mask("a", [1, 1, 1, 1]), with_mask("b", [0, 0, 1, 1]), with_mask("c", [0, 0, 0, 0])]
    jaccard, share = neuron_masks.mask_overlap([*learned, TrainedConcept("d", None, {}, {})])
    empty = [0.0, 0.0]
    assert jaccard.tolist() == [[1.0, 0.5, *empty], [0.5, 1.0, *empty], [0.0] * 4, [0.0] * 4]
    assert share.tolist() == [[1.0, 0.5, *empty], [1.0, 1.0, *empty], [0.0] * 4, [0.0] * 4]
