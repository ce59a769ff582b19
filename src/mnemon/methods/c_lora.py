"""C-LoRA, Continual Diffusion (Smith et al., arXiv 2304.06027). Not arXiv 2502.17920, which has the same short name.

The authors publish no code. The equations are the paper's, read from accounts of it by others; its values of lambda,
the rank, the rates and the number of steps are not known here.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mnemon.adapters import sum_deltas
from mnemon.methods import parts
from mnemon.methods.base import Start, Step
from mnemon.methods.low_rank import LoraLearner, LoraMethod
from mnemon.methods.parts import weighted_l2
from mnemon.settings import NonNegativeFloat, PositiveFloat, PositiveInt


class CLoraLearner(LoraLearner):
    """A_t, B_t of every target module and the token V*_t, as in sequential LoRA; and the importance P_{t-1}^2."""

    def __init__(self, method: "CLora", start: Start) -> None:
        super().__init__(method, start)
        self.forget_weight = method.forget_weight
        # P_{t-1}, once: the earlier factors are not multiplied again, and a step's cost does not grow with t.
        past = sum_deltas([concept.deltas for concept in start.earlier])
        # A concept that was imported may have changed more layers than are trained here.
        layers = start.base.target_modules()
        self.importance = parts.change_importance(past, layers, method.forget_scale == "relative")

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        if not self.importance:
            return torch.zeros(())
        forgetting = weighted_l2(self.importance, self.deltas())  # L_forget
        return self.protecting("forget_weight", self.forget_weight, forgetting)


@dataclass(frozen=True)
class CLora(LoraMethod):
    """Sequential LoRA with every weight regularised in proportion to how far earlier concepts have moved it.

    For each adapted W in R^{D1 x D2} and concept t:

        W_t      = W_{t-1} + A_t B_t = W_init + sum_{t'<=t} A_t' B_t'      A_t (D1, r) starts at zero, B_t (r, D2)
        P_{t-1}  = sum_{t'<t} A_t' B_t' = W_{t-1} - W_init                 a sum of products, not a product of sums
        L_forget = sum (P_{t-1} (.) (A_t B_t))^2 / (sum P_{t-1}^2 · mean W^2)     over all layers' entries, in fp32
        L        = L_diffusion + lambda L_forget

    The loss's derivative by Delta = A_t B_t is 2 P^2 (.) Delta: elastic weight consolidation (arXiv 1612.00796) around
    W_{t-1} with importance P^2. The denominator takes the units away; the paper has none (`forget_scale` "sum").
    V*_t starts at random and no class noun follows it, so that two concepts of one class share no word.
    """

    name: ClassVar[str] = "c-lora"
    source: ClassVar[str] = "arXiv 2304.06027 (its equations, from accounts of it; the authors publish no code)"

    learning_rate: PositiveFloat = 1e-3
    """Learning rate of the factors."""
    num_vectors: PositiveInt = 3
    """Number of embeddings per placeholder token. Embeddings are not regularised, so more of them let a late concept
    learn without changing shared weights."""
    use_class_noun: bool = False
    """Put the class noun after the token in prompts. The paper leaves it out."""
    forget_weight: NonNegativeFloat = 10.0
    """lambda."""
    forget_scale: Literal["relative", "sum"] = "relative"
    """L_forget relative to the size of weights and earlier changes, or as the plain sum."""

    def begin(self, start: Start) -> CLoraLearner:
        return CLoraLearner(self, start)
