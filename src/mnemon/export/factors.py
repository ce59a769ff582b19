"""A change of weights as the low-rank factors that LoRA files hold: exact, or by a truncated SVD."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mnemon.adapters import Delta, LowRank
from mnemon.errors import MnemonError

SAME = 1e-5
"""Largest relative difference of equal changes: rounding in fp32 stays well below."""


@dataclass(frozen=True)
class RankSelection:
    """Which rank approximates a change: at most `rank`, or the lowest with the share `energy` (0..1) of the sum of its
    squared singular values; exact with neither.

    Raises:
        MnemonError: both are given, or one is out of range.
    """

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise MnemonError("A rank and a share of the energy cannot be kept both: give one of them.")
        if self.rank is not None and self.rank < 1:
            raise MnemonError(f"A rank of {self.rank} holds nothing: give 1 or more.")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise MnemonError(f"A share of {self.energy} of the energy is out of range: give more than 0, at most 1.")

    @property
    def exact(self) -> bool:
        return self.rank is None and self.energy is None


def low_rank_of(target: str, whole: Delta, parts: Sequence[Mapping[str, Delta]]) -> LowRank | None:
    """The factors of a composed change that is the sum of its parts' low-rank changes; None for others.

    A single part keeps its factors and scale; several are concatenated, with their scales merged into `up`.
    """
    deltas = [part[target] for part in parts if target in part]
    low_rank = [delta for delta in deltas if isinstance(delta, LowRank)]
    if not low_rank or len(low_rank) < len(deltas):
        return None
    factors = low_rank[0]
    if len(low_rank) > 1:
        up = torch.cat([delta.scale * delta.up.data.float() for delta in low_rank], dim=1)
        factors = LowRank(up, torch.cat([delta.down.data.float() for delta in low_rank]))
    matrix = whole.matrix().cpu()
    return factors if (factors.matrix().cpu() - matrix).norm() <= SAME * matrix.norm() else None


def truncated_svd(matrix: Tensor, rank_selection: RankSelection) -> LowRank:
    """The closest factors of a matrix (d_out, d_in) at the selected rank (Eckart-Young), each scaled by the roots of
    the singular values. An exact selection drops those that are zero to rounding."""
    u, s, v = torch.linalg.svd(matrix.float(), full_matrices=False)
    rank = min(rank_selection.rank or len(s), int((s > s[0] * torch.finfo(s.dtype).eps).sum()))
    if rank_selection.energy is not None:
        held = s.double().square().cumsum(0)
        rank = min(rank, int((held < rank_selection.energy * held[-1]).sum()) + 1)
    root = s[:rank].sqrt()
    return LowRank((u[:, :rank] * root).contiguous(), (root[:, None] * v[:rank]).contiguous())
