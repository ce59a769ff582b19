"""C-LoRA for classification (Smith et al., arXiv 2304.06027); values as arXiv 2404.00228 re-ran it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mnemon.adapters import sum_deltas
from mnemon.classification.methods.adapters import LowRankLearner, LowRankMethod
from mnemon.classification.methods.base import Batch, Start
from mnemon.methods.parts import change_importance, weighted_l2
from mnemon.settings import NonNegativeFloat


class CLoraLearner(LowRankLearner):
    """A_t, B_t, and the importance P_{t-1}^2."""

    def __init__(self, method: "CLora", start: Start) -> None:
        super().__init__(method, start)
        self.forget_weight = method.forget_weight
        past = sum_deltas([task.deltas for task in start.earlier])
        self.importance = change_importance(past, self.layers, method.forget_scale == "relative")

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        if not self.importance:
            return torch.zeros((), device=features.device)
        return self.forget_weight * weighted_l2(self.importance, self.current())


@dataclass(frozen=True)
class CLora(LowRankMethod):
    """Sequential LoRA with every weight regularised in proportion to how far earlier tasks have moved it:

    W_t      = W_{t-1} + A_t B_t               A_t (D1, r) starts at zero, B_t (r, D2) at random
    P_{t-1}  = sum_{t'<t} A_t' B_t'            a sum of products, not a product of sums
    L        = CE + lambda || |P_{t-1}| (.) (A_t B_t) ||_F^2         over all layers' entries, in fp32
    """

    name: ClassVar[str] = "c-lora"
    source: ClassVar[str] = "arXiv 2304.06027; rank, rate and lambda of arXiv 2404.00228"

    forget_weight: NonNegativeFloat = 0.5
    """lambda."""
    forget_scale: Literal["sum", "relative"] = "sum"
    """The penalty as the plain sum, or relative to the size of weights and earlier changes."""

    def begin(self, start: Start) -> CLoraLearner:
        return CLoraLearner(self, start)
