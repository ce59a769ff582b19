"""A low-rank change of which a hard mask keeps some entries (STAMINA, arXiv 2311.18763)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from mnemon.adapters.bits import pack_bits, unpack_bits
from mnemon.adapters.delta import Delta
from mnemon.adapters.low_rank import check_factors


class MaskedLowRank(Delta):
    """Δ = (up · down) ⊙ mask, with `up` (d_out, rank), `down` (rank, d_in) and a boolean `mask` (d_out, d_in).

    In general of full rank. Stored as rank · (d_out + d_in) numbers and d_out · d_in / 8 bytes.
    """

    kind: ClassVar[str] = "masked_low_rank"
    up: Tensor
    down: Tensor
    mask: Tensor

    def __init__(self, up: Tensor, down: Tensor, mask: Tensor) -> None:
        super().__init__()
        check_factors(up, down)
        self.register_buffer("up", up)
        self.register_buffer("down", down)
        self.register_buffer("mask", mask.bool())

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    def matrix(self) -> Tensor:
        return (self.up.float() @ self.down.float()) * self.mask

    def scaled(self, factor: float) -> "MaskedLowRank":
        return MaskedLowRank(factor * self.up.detach(), self.down.detach(), self.mask)

    def state(self) -> dict[str, Tensor]:
        return {"up": self.up, "down": self.down, "mask": pack_bits(self.mask)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "MaskedLowRank":
        up, down = state["up"], state["down"]
        return cls(up, down, unpack_bits(state["mask"], (up.shape[0], down.shape[1])))
