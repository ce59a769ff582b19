"""Overlap of the factors of several concepts (R1 of CIDM, arXiv 2410.17594; R1' of FL2T, arXiv 2601.01963)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.linalg import matrix_norm

from mnemon.methods.base import TrainedConcept

TINY = 1e-12
Overlap = Literal["absolute", "square", "signed", "gram", "relative"]
"""Of A_i A_g^T (D1 x D1) the mean of: absolute entries, squares, or entries as they are; `gram`: the mean absolute
entry of A_i^T A_g (r x r), which is zero when the columns are orthogonal; `relative`: the cosine of
A_i A_i^T and A_g A_g^T, || A_i^T A_g ||^2 / (|| A_i^T A_i || || A_g^T A_g ||), in 0..1 whatever their size."""


def stacked_ups(learned: Sequence[TrainedConcept], target: str) -> Tensor:
    """A_1, A_2, ... of one target module, (concepts, D1, r), in fp32."""
    return torch.stack([one.deltas[target].get_parameter("up").detach().float() for one in learned])


def overlaps(own: Tensor, others: Tensor, how: Overlap) -> Tensor:
    """The overlap (concepts,) of A_g (D1, r) with each A_i of (concepts, D1, r); differentiable in A_g.

    The first three act as shrinkage too: where A_i has rank r, A_i A_g^T = 0 holds for A_g = 0 alone. `relative` of a
    zero factor is 0.
    """
    if how == "absolute":
        means: Tensor = _MeanAbsolute.apply(own, others)
        return means
    if how == "gram":
        return (others.mT @ own).abs().mean((1, 2))
    if how == "relative":
        sizes = matrix_norm(others.mT @ others) * matrix_norm(own.T @ own)
        return matrix_norm(others.mT @ own).square() / sizes.clamp_min(TINY)
    entries = len(own) * others.shape[1]
    if how == "signed":
        return others.sum(1) @ own.sum(0) / entries
    # || A_i A_g^T ||_F^2 = tr((A_i^T A_i) (A_g^T A_g)): products of r x r
    return ((others.mT @ others) * (own.T @ own)).sum((1, 2)) / entries


class _MeanAbsolute(torch.autograd.Function):
    """mean |A_i A_g^T| over the D1 x D1 entries. Its derivative sign(A_g A_i^T) A_i is thin and is computed in the
    forward pass, so that no D1 x D1 matrix is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, others: Tensor) -> Tensor:
        products = others @ own.T  # (concepts, D1, D1)
        entries = products[0].numel()
        ctx.save_for_backward(products.sign().mT @ others / entries)  # (concepts, D1, r)
        return products.abs_().sum((1, 2)) / entries

    @staticmethod
    def backward(ctx: Any, *by_mean: Tensor) -> tuple[Tensor, None]:
        (derivative,) = ctx.saved_tensors
        return torch.einsum("n,ndr->dr", by_mean[0], derivative), None


def mean_overlap(ups: Mapping[str, Tensor], others: Mapping[str, Tensor], how: Overlap) -> Tensor:
    """For each other concept its overlap (concepts,), the mean over target modules."""
    return torch.stack([overlaps(ups[target], stack, how) for target, stack in others.items()]).mean(0)
