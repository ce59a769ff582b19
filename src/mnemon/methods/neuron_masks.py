"""0/1 masks of a concept's neurons, one for each target module: their size, overlap and union."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mnemon.adapters import Sparse
from mnemon.methods.base import TrainedConcept

Masks = Mapping[str, Tensor]
"""A boolean (d_out, d_in) for each target module."""


def shuffled(masks: Masks, generator: torch.Generator) -> dict[str, Tensor]:
    """At each target module as many entries, at random places."""
    mixed = {}
    for target, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator, device=generator.device).to(mask.device)
        mixed[target] = mask.flatten()[order].view_as(mask)
    return mixed


def stored_masks(one: TrainedConcept) -> dict[str, Tensor]:
    """The stored masks of a concept, by target module."""
    return {target: delta.mask for target, delta in one.deltas.items() if isinstance(delta, Sparse)}


def union(learned: Sequence[TrainedConcept], like: Masks) -> dict[str, Tensor]:
    """U = OR_i M^i, with the target modules, shapes and device of `like`; all zero for no concept."""
    total = {target: torch.zeros_like(mask) for target, mask in like.items()}
    for one in learned:
        for target, mask in stored_masks(one).items():
            total[target] |= mask.to(total[target].device)
    return total


def entries(masks: Masks) -> int:
    """How many entries are set at all target modules together."""
    return sum(int(mask.sum()) for mask in masks.values())


def both(left: Masks, right: Masks) -> int:
    """How many entries are set in both masks; target modules that one of them lacks count as not set."""
    return sum(int((mask & right[target].to(mask.device)).sum()) for target, mask in left.items() if target in right)


def iou(left: Masks, right: Masks) -> float:
    """|left AND right| / |left OR right|; 0 for two empty masks."""
    shared = both(left, right)
    return shared / max(entries(left) + entries(right) - shared, 1)


def mask_overlap(learned: Sequence[TrainedConcept]) -> tuple[Tensor, Tensor]:
    """The overlap of the masks of t concepts, in two matrices (t, t).

    Returns:
        |M_i AND M_j| / |M_i OR M_j|, symmetric with ones on the diagonal; and |M_i AND M_j| / |M_i|, the share of
        concept i's entries that concept j changes too. Zero where a mask is empty.
    """
    masks = [stored_masks(one) for one in learned]
    shared = torch.tensor([[both(left, right) for right in masks] for left in masks], dtype=torch.float64)
    size = shared.diagonal()
    joint = size[:, None] + size[None, :] - shared
    return shared / joint.clamp(min=1), shared / size[:, None].clamp(min=1)
