"""A change of some entries of a weight matrix."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.adapters.bits import pack_bits, unpack_bits
from mnemon.adapters.delta import Delta


class Sparse(Delta):
    """Δ is zero but where the boolean `mask` (d_out, d_in) is set; there it is `values` (entries set,), row by row."""

    kind: ClassVar[str] = "sparse"
    mask: Tensor
    values: Tensor

    def __init__(self, mask: Tensor, values: Tensor) -> None:
        super().__init__()
        if values.shape != (int(mask.sum()),):
            raise ValueError(f"values {tuple(values.shape)} for a mask of {int(mask.sum())} entries")
        self.register_buffer("mask", mask.bool())
        self.register_buffer("values", values)

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> "Sparse":
        """Keep the non-zero entries of a dense (d_out, d_in) matrix."""
        mask = matrix != 0
        return cls(mask, matrix[mask])

    @property
    def shape(self) -> tuple[int, int]:
        return self.mask.shape[0], self.mask.shape[1]

    def matrix(self) -> Tensor:
        dense = torch.zeros(self.shape, dtype=torch.float32, device=self.values.device)
        return dense.masked_scatter(self.mask, self.values.float())

    def scaled(self, factor: float) -> "Sparse":
        return Sparse(self.mask, factor * self.values.detach())

    def state(self) -> dict[str, Tensor]:
        shape = torch.tensor(self.shape, dtype=torch.int64)
        return {"mask": pack_bits(self.mask), "values": self.values, "shape": shape}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Sparse":
        d_out, d_in = state["shape"].tolist()
        return cls(unpack_bits(state["mask"], (d_out, d_in)), state["values"])
