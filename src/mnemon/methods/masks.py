"""Learned 0/1 masks over weight matrices, from low-rank logits."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mnemon.methods.parts import sample_normal, sample_uniform

MaskKind = Literal["none", "soft", "sigmoid_st", "gumbel_st"]
MaskParam = Literal["factor_mlp", "factor_linear"]


class RowMlp(nn.Module):
    """linear - ReLU - linear on the last axis, with its own weights for each of n stacked matrices.

    (n, rows, width) -> (n, rows, width). The last layer starts small.
    """

    def __init__(self, stack: int, width: int, generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        start = sample_normal((2, stack, width, width), generator, device) / width**0.5
        self.first = nn.Parameter(start[0])
        self.first_bias = nn.Parameter(torch.zeros(stack, 1, width, device=device))
        self.last = nn.Parameter(0.1 * start[1])
        self.last_bias = nn.Parameter(torch.zeros(stack, 1, width, device=device))

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.relu(torch.baddbmm(self.first_bias, rows, self.first))
        return torch.baddbmm(self.last_bias, hidden, self.last)


class MaskLogits(nn.Module):
    """S = g(U) h(Q) + b0 for n stacked (D1, D2) matrices: (n, D1, D2).

    U in R^{D1 x r_m}, Q in R^{r_m x D2}; g acts on the rows of U and h on the columns of Q. With `factor_linear` both
    are the identity. The product starts small and b0 > 0, so nearly all gates start open.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        rank: int,
        open_logit: float,
        param: MaskParam,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        stack, rows, columns = shape
        size = 1.0 if param == "factor_mlp" else 0.1
        self.u = nn.Parameter(size * sample_normal((stack, rows, rank), generator, device))
        self.q = nn.Parameter(size * sample_normal((stack, columns, rank), generator, device))  # Q transposed
        self.g: nn.Module = nn.Identity()
        self.h: nn.Module = nn.Identity()
        if param == "factor_mlp":
            self.g = RowMlp(stack, rank, generator, device)
            self.h = RowMlp(stack, rank, generator, device)
        self.b0 = nn.Parameter(torch.full((stack, 1, 1), float(open_logit), device=device))

    def forward(self) -> Tensor:
        return torch.baddbmm(self.b0, self.g(self.u), self.h(self.q).mT)


def training_logits(logits: Tensor, kind: MaskKind, generator: torch.Generator) -> Tensor:
    """The logits of one training step: for `gumbel_st` with noise, S + G1 - G0 with Gumbel variables G, else S."""
    if kind != "gumbel_st":
        return logits
    # The difference of two Gumbel variables is logistic, which one uniform number gives.
    return logits + sample_uniform(tuple(logits.shape), generator, logits.device).logit_(eps=1e-6)


def soft_gates(logits: Tensor, tau: float) -> Tensor:
    """The soft gates y = sigmoid(S / tau)."""
    return torch.sigmoid(logits / tau)


def training_mask(logits: Tensor, kind: MaskKind, tau: float) -> Tensor:
    """The mask of the logits' shape: for `soft` the gates y themselves, else 1[S > 0] with the slope of y.

    On logits with Gumbel noise these are straight-through gates of the binary concrete (arXiv 1611.00712).
    """
    if kind == "soft":
        return soft_gates(logits, tau)
    mask: Tensor = _HardMask.apply(logits, tau)
    return mask


SAMPLE = 2**14


def sampled_quantile(logits: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """About the value below which `share` of the logits lie, from a sample of them: sorting all would cost more than a
    training step."""
    flat = logits.flatten()
    if len(flat) > SAMPLE:
        places = torch.randint(len(flat), (SAMPLE,), generator=generator, device=generator.device)
        flat = flat[places.to(flat.device)]
    return torch.quantile(flat, share) if share else flat.min() - 1


def largest(logits: Tensor, share: float) -> Tensor:
    """The value above which exactly `share` of the logits lie, rounded to whole entries and at least one."""
    flat = logits.flatten()
    kept = max(1, round(share * len(flat)))
    return flat.min() - 1 if kept == len(flat) else flat.topk(kept + 1).values[-1]


class _HardMask(torch.autograd.Function):
    """1[S > 0] in the forward pass, y = sigmoid(S / tau) in the backward pass: `hard + (y - y.detach())`, but y is
    computed only in the backward pass, and nothing of the logits' size is kept but the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tau: float) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.tau = tau
        return (logits > 0).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (logits,) = ctx.saved_tensors
        # gradient · y · (1 - y) / tau
        return torch.ops.aten.sigmoid_backward(gradient, soft_gates(logits, ctx.tau)) / ctx.tau, None
