"""A low-rank change of a weight matrix (LoRA, arXiv 2106.09685)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mnemon.adapters.delta import Delta


class LowRank(Delta):
    """Δ = scale · up · down, with `up` (d_out, rank) and `down` (rank, d_in).

    `up` is the papers' A and PEFT's `lora_B`; `down` is the papers' B and PEFT's `lora_A`.
    """

    kind: ClassVar[str] = "low_rank"
    up: Tensor
    down: Tensor

    def __init__(self, up: Tensor, down: Tensor, scale: float = 1.0, trainable: bool = False) -> None:
        super().__init__()
        check_factors(up, down)
        self.up = nn.Parameter(up, requires_grad=trainable)
        self.down = nn.Parameter(down, requires_grad=trainable)
        self.scale = scale

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    def matrix(self) -> Tensor:
        return self.scale * (self.up.float() @ self.down.float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Two thin products instead of one dense one."""
        hidden = linear(inputs, self.down.to(inputs.dtype))  # (..., rank)
        return linear(self.scale * hidden, self.up.to(inputs.dtype))

    def frozen_copy(self) -> "LowRank":
        """The same change in tensors of its own, on the CPU, not trainable."""
        return LowRank(self.up.detach().cpu().clone(), self.down.detach().cpu().clone(), self.scale)

    def scaled(self, factor: float) -> "LowRank":
        return LowRank(self.up.detach(), self.down.detach(), factor * self.scale)

    def state(self) -> dict[str, Tensor]:
        return {"up": self.up.data, "down": self.down.data, "scale": torch.tensor(self.scale, dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "LowRank":
        return cls(state["up"], state["down"], state["scale"].item())


class Product(LowRank):
    """A low-rank change whose factors a learner assigns at every step, in the graph of its parameters."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        Delta.__init__(self)
        check_factors(up, down)
        self.register_buffer("up", up)
        self.register_buffer("down", down)
        self.scale = 1.0


def check_factors(up: Tensor, down: Tensor) -> None:
    """Refuse factors that cannot be multiplied, with a ValueError."""
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
        raise ValueError(f"up {tuple(up.shape)} times down {tuple(down.shape)} is no low-rank product")
