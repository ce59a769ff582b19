"""Transfer of FL2T: a concept's change may use the low-rank factors of other concepts (this project's reading).

    dW_g = A_g B_g + sum_{i != g} beta_gi A_i B_i

What is stored is the nearest matrix of rank r, so that a concept needs no other one: drawing, size and removal are as
without.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from mnemon.adapters import LowRank

Transfer = Literal["none", "start", "add", "shared"]


class Mixed(LowRank):
    """A_g B_g + `mixture`: (D1, D2), of other concepts' factors, made anew for every step; None for none."""

    def __init__(self, own: LowRank) -> None:
        super().__init__(own.up.data, own.down.data, own.scale, trainable=True)
        self.mixture: Tensor | None = None

    def matrix(self) -> Tensor:
        own = super().matrix()
        return own if self.mixture is None else own + self.mixture

    def forward(self, inputs: Tensor) -> Tensor:
        own = super().forward(inputs)
        return own if self.mixture is None else own + linear(inputs, self.mixture.to(inputs.dtype))

    def frozen_copy(self) -> LowRank:
        """Of the same rank, also with a mixture."""
        if self.mixture is None:
            return super().frozen_copy()
        up, down = truncated(self.matrix().detach(), self.down.detach())
        return LowRank(up.cpu().clone(), down.cpu().clone())

    @torch.no_grad()
    def absorb(self) -> None:
        """Go on from the sum: A_g and B_g become the factors of the nearest matrix of their rank."""
        if self.mixture is not None:
            up, down = truncated(self.matrix(), self.down)
            self.up.copy_(up / self.scale)
            self.down.copy_(down)
            self.mixture = None


def mixture(weights: Tensor, ups: Tensor, downs: Tensor) -> Tensor:
    """sum_i beta_i A_i B_i (D1, D2) of the weights (G,), A (G, D1, r) and B (G, r, D2), as one product."""
    return (weights[:, None, None] * ups).transpose(0, 1).flatten(1) @ downs.flatten(0, 1)


def truncated(matrix: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (D1, r) and (r, D2) of the matrix of rank r that is nearest to `matrix` (truncated SVD). The second has
    orthogonal rows as long as those of `down` (r, D2) are in the mean, so that learning rates keep their meaning."""
    rank, length = len(down), down.norm(dim=1).mean()
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * (s[:rank] / length), v[:rank] * length
