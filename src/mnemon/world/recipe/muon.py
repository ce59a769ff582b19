"""Muon (Jordan et al. 2024): orthogonalised momentum for matrices, Adam for the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Weights of two or more axes, flattened to (out, rest), are updated by orthogonalised momentum; embeddings, biases
    and norms by Adam.

    `lr` is Adam's learning rate; that of matrices is `lr * lr_multiplier`.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        lr: float,
        *,
        lr_multiplier: float = 12.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        inner = [part for module in modules for part in module.modules()]
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for part in inner:
            for parameter in part.parameters(recurse=False):
                orthogonalised = parameter.ndim >= 2 and not isinstance(part, nn.Embedding)
                (matrices if orthogonalised else rest).append(parameter)
        defaults: dict[str, Any] = {
            "lr": lr,
            "lr_multiplier": lr_multiplier,
            "momentum": momentum,
            "betas": betas,
            "weight_decay": weight_decay,
        }
        super().__init__([{"params": matrices, "muon": True}, {"params": rest, "muon": False}], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._muon if group["muon"] else self._adam)(parameter, parameter.grad, group)

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        buffer = state.setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(buffer, group["momentum"])  # Nesterov
        matrix = orthogonal(direction.flatten(1))
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        lr = group["lr"] * group["lr_multiplier"]
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(matrix.view_as(parameter).to(parameter.dtype), alpha=-lr * scale)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {
                "count": torch.zeros(()),
                "mean": torch.zeros_like(parameter),
                "square": torch.zeros_like(parameter),
            }
        first, second = group["betas"]
        state["count"] += 1
        count = float(state["count"])
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        denominator = (state["square"] / (1 - second**count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - first**count))


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly, by a quintic Newton-Schulz iteration in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).float()
