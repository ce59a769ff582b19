"""A delta: a change of one weight matrix."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import linear


class Delta(nn.Module, ABC):
    """A change Δ, (d_out, d_in), of one weight matrix W0: an adapted layer computes W0 x + Δ x."""

    kind: ClassVar[str]
    """Name in files and in the registry of kinds."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in), without computing Δ."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """Δ as a dense (d_out, d_in) tensor in fp32, differentiable in the delta's parameters."""

    def scaled(self, factor: float) -> "Delta":
        """factor · Δ, of the same kind, not trainable; of the kinds that are stored."""
        raise NotImplementedError(f"{type(self).__name__} is trained, not stored")

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The tensors to store."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Delta":
        """The delta that `state()` described; its `matrix()` is equal bit for bit."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Δ x for inputs (..., d_in), in the inputs' dtype."""
        return linear(inputs, self.matrix().to(inputs.dtype))

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state().values())
