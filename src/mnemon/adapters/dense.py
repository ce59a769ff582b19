"""A dense change of a weight matrix."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.adapters.delta import Delta


class Dense(Delta):
    """Δ = `values`, (d_out, d_in). A learner may assign new `values` at every step, in the graph of its parameters."""

    kind: ClassVar[str] = "dense"
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        if values.ndim != 2:
            raise ValueError(f"values {tuple(values.shape)} is no matrix")
        self.register_buffer("values", values)

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def matrix(self) -> Tensor:
        return self.values.float()

    def scaled(self, factor: float) -> "Dense":
        return Dense(factor * self.values.detach())

    def state(self) -> dict[str, Tensor]:
        return {"values": self.values}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Dense":
        return cls(state["values"])


def sum_deltas(deltas: list[Mapping[str, Delta]]) -> dict[str, Dense]:
    """Sum sets of deltas by target module, in the order of the list; target modules that none of them has are left out.

    Sums of products, not products of sums: each delta's matrix is formed first, in fp32.
    """
    return dict(SummedDeltas(deltas))


class SummedDeltas(Mapping[str, Dense]):
    """As `sum_deltas`, bit for bit, but each layer is summed when it is asked for, and kept nowhere."""

    def __init__(self, deltas: Sequence[Mapping[str, Delta]]) -> None:
        self._deltas = deltas
        self._targets = dict.fromkeys(target for change in deltas for target in change)

    def __getitem__(self, target: str) -> Dense:
        if target not in self._targets:
            raise KeyError(target)
        parts = (change[target].matrix().detach() for change in self._deltas if target in change)
        total = next(parts).clone()  # not the memory of a stored change
        for part in parts:
            total = total + part.to(total.device)
        return Dense(total)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


def mean_deltas(deltas: list[Mapping[str, Delta]]) -> dict[str, Dense]:
    """The mean of sets of deltas by target module; a set without a target module counts as zero there."""
    return {target: Dense(total.matrix() / len(deltas)) for target, total in sum_deltas(deltas).items()}


def zeros(shape: tuple[int, int], device: torch.device) -> Dense:
    """No change, (d_out, d_in)."""
    return Dense(torch.zeros(shape, device=device))
