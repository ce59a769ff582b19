"""Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796) of the weights that Custom Diffusion trains.

C-LoRA's paper (arXiv 2304.06027) names it among its baselines. How the Fisher information is estimated there and with
which lambda is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.methods.base import Losses, Step, TrainedConcept
from mnemon.methods.custom_diffusion import CustomDiffusion, CustomDiffusionLearner
from mnemon.methods.parts import pull
from mnemon.models.base import Base
from mnemon.settings import check_settings


class EwcLearner(CustomDiffusionLearner):
    """Delta_t of every target module and the token vector V*_t, as in Custom Diffusion; the importance of every entry to the
    earlier concepts, and at the end its own Fisher information."""

    def __init__(
        self,
        method: "Ewc",
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> None:
        super().__init__(method, name, class_noun, base, earlier, generator)
        self.forget_weight, self.draws = method.forget_weight, method.draws
        self.importance = {target: total.to(base.device) for target, total in summed(earlier).items()}
        self.fisher: dict[str, Tensor] = {}

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda · sum over layers and entries of (F_1 + ... + F_{t-1}) (.) Delta_t^2."""
        return self.forget_weight * pull(self.importance, self.deltas())

    def on_train_end(self, losses: Losses, generator: torch.Generator) -> None:
        """F_t: the mean of the squared gradient over single draws of image, timestep and noise."""
        totals = [torch.zeros_like(change) for change in self.changes]
        for _ in range(self.draws):
            gradients = torch.autograd.grad(losses(generator), list(self.changes))
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.square()
        self.fisher = {target: total / self.draws for target, total in zip(self.deltas(), totals, strict=True)}

    def finish(self) -> TrainedConcept:
        return replace(super().finish(), extra={target: fisher.cpu() for target, fisher in self.fisher.items()})


def summed(earlier: Sequence[TrainedConcept]) -> Mapping[str, Tensor]:
    """F_1 + ... + F_{t-1} of every target module, (d_out, d_in); nothing for the first concept."""
    if not earlier:
        return {}
    return {target: torch.stack([one.extra[target] for one in earlier]).sum(0) for target in earlier[0].extra}


@dataclass(frozen=True)
class Ewc(CustomDiffusion):
    """Custom Diffusion, one concept after another, with a price on every weight entry, as high as the earlier concepts'
    losses are sensitive to it:

        W_t = W_{t-1} + Delta_t                      every entry trained, as in `custom-diffusion`
        F_t = E (d L_diffusion / d W)^2 at W_t       entry by entry; gradients of single draws, squared, then averaged
        L   = L_diffusion + lambda sum over layers and entries of (F_1 + ... + F_{t-1}) (.) Delta_t^2       in fp32

    F_t is the empirical diagonal Fisher information of concept t's own images. It is measured when the concept has
    been learned and kept with it in fp32, as large as Delta_t; the token has none. Gradients are those that train: the
    start mark gives none. At t = 1 there is no price.
    """

    name: ClassVar[str] = "ewc"
    stores: ClassVar[str] = "the changes of these weights and their importance, every entry, and the token's vector"
    source: ClassVar[str] = "arXiv 1612.00796, on the weights of arXiv 2212.04488"

    forget_weight: float = 1e6
    """lambda, for the sum over layers and entries."""
    draws: int = 100
    """Single draws of image, timestep and noise over which F_t is averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, ("draws",), ("forget_weight",))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> EwcLearner:
        return EwcLearner(self, name, class_noun, base, earlier, generator)
