"""An exponential moving average of what is trained (Polyak & Juditsky, 1992), kept instead of the last values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema(nn.Module):
    """The average θ̄ ← β_t θ̄ + (1 - β_t) θ after step t, with β_t = min(β, (1 + t) / (10 + t)), so that the start is
    forgotten. Its tensors are buffers: a checkpoint has them.

    Args:
        parameters: those that are trained.
        decay: β.
    """

    steps: Tensor

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._parameters_now: list[Tensor] = list(parameters)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for index, parameter in enumerate(parameters):
            self.register_buffer(f"average_{index}", parameter.detach().clone())

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimiser."""
        self.steps += 1
        done = int(self.steps)
        decay = min(self.decay, (1 + done) / (10 + done))
        torch._foreach_lerp_(self._averages(), self._parameters_now, 1 - decay)

    @torch.no_grad()
    def apply_to_parameters(self) -> None:
        """Give the parameters the average, for good."""
        torch._foreach_copy_(self._parameters_now, self._averages())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters have the average; the same bits as before come back after."""
        own = [parameter.detach().clone() for parameter in self._parameters_now]
        self.apply_to_parameters()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters_now, own)

    def _averages(self) -> list[Tensor]:
        return [self.get_buffer(f"average_{index}") for index in range(len(self._parameters_now))]
