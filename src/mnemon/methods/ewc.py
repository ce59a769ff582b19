"""Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796) of the weights that Custom Diffusion trains.

C-LoRA's paper (arXiv 2304.06027) names it among its baselines. How the Fisher information is estimated there and with
which lambda is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.methods.base import Losses, Start, Step, TrainedConcept
from mnemon.methods.full_rank import FullRankLearner, FullRankMethod
from mnemon.methods.parts import weighted_l2
from mnemon.settings import NonNegativeFloat, PositiveInt


class EwcLearner(FullRankLearner):
    """Delta_t of every target module and the token V*_t, as in Custom Diffusion; the earlier concepts' Fisher
    information, and at the end its own."""

    def __init__(self, method: "Ewc", start: Start) -> None:
        super().__init__(method, start)
        self.forget_weight, self.draws = method.forget_weight, method.draws
        self.importance = {target: total.to(start.base.device) for target, total in summed(start.earlier).items()}
        self.fisher: dict[str, Tensor] = {}

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda · sum over layers and entries of (F_1 + ... + F_{t-1}) (.) Delta_t^2."""
        if not self.importance:
            return torch.zeros(())
        return self.protecting("forget_weight", self.forget_weight, weighted_l2(self.importance, self.deltas()))

    def on_train_end(self, losses: Losses, generator: torch.Generator) -> None:
        """F_t: the mean of the squared gradient over single samples of image, timestep and noise."""
        totals = [torch.zeros_like(change) for change in self.changes]
        for _ in range(self.draws):
            gradients = torch.autograd.grad(losses(generator), list(self.changes))
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.square()
        self.fisher = {target: total / self.draws for target, total in zip(self.deltas(), totals, strict=True)}

    def extra(self) -> dict[str, Tensor]:
        return {target: fisher.cpu() for target, fisher in self.fisher.items()}


def summed(earlier: Sequence[TrainedConcept]) -> Mapping[str, Tensor]:
    """F_1 + ... + F_{t-1} of every target module, (d_out, d_in); nothing for the first concept."""
    if not earlier:
        return {}
    return {target: torch.stack([concept.extra[target] for concept in earlier]).sum(0) for target in earlier[0].extra}


@dataclass(frozen=True)
class Ewc(FullRankMethod):
    """Custom Diffusion, one concept after another, with every weight regularised in proportion to the sensitivity of
    the earlier concepts' losses to it:

        W_t = W_{t-1} + Delta_t                      every entry trained, as in `custom-diffusion`
        F_t = E (d L_diffusion / d W)^2 at W_t       entry by entry; gradients of single samples, squared, then averaged
        L   = L_diffusion + lambda sum over layers and entries of (F_1 + ... + F_{t-1}) (.) Delta_t^2       in fp32

    F_t is the empirical diagonal Fisher information of concept t's own images. It is estimated when the concept has
    been trained and stored with it in fp32, as large as Delta_t; the token has none. Gradients are those that train:
    a BOS token gives none. At t = 1 there is no regularisation.
    """

    name: ClassVar[str] = "ewc"
    stores: ClassVar[str] = "the changes of these weights and their importance, every entry, and the token's vector"
    source: ClassVar[str] = "arXiv 1612.00796, on the weights of arXiv 2212.04488"

    forget_weight: NonNegativeFloat = 1e6
    """lambda, for the sum over layers and entries."""
    draws: PositiveInt = 100
    """Single samples of image, timestep and noise over which F_t is averaged."""

    def begin(self, start: Start) -> EwcLearner:
        return EwcLearner(self, start)
