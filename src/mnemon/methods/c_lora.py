"""C-LoRA, Continual Diffusion (Smith et al., arXiv 2304.06027). Not arXiv 2502.17920, which has the same short name.

The authors publish no code. The equations are the paper's, read from accounts of it by others; its values of lambda,
the rank, the rates and the number of steps are not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.adapters import sum_deltas
from mnemon.methods.base import Step, TrainedConcept
from mnemon.methods.lora import Lora, LoraLearner
from mnemon.methods.parts import pull
from mnemon.models.base import Base
from mnemon.settings import check_settings


class CLoraLearner(LoraLearner):
    """A_t, B_t of every target module and the token vector V*_t, as in sequential LoRA; and P_{t-1}^2, which prices A_t B_t."""

    def __init__(
        self,
        method: "CLora",
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> None:
        super().__init__(method, name, class_noun, base, generator)
        self.forget_weight = method.forget_weight
        # P_{t-1}, once: the earlier factors are not multiplied again, and a step's cost does not grow with t.
        past = sum_deltas([one.deltas for one in earlier])
        # P_{t-1}^2; a concept that was imported may have changed more layers than are trained here.
        moved = {target: past[target] for target in self.target_modules if target in past}
        self.importance = {target: total.matrix().to(base.device).square() for target, total in moved.items()}

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda · sum over layers of || |P_{t-1}| (.) (A_t B_t) ||_F^2."""
        return self.forget_weight * pull(self.importance, self.deltas())


@dataclass(frozen=True)
class CLora(Lora):
    """Sequential LoRA with a price on every weight entry, as high as earlier concepts have moved it.

    For each adapted W in R^{D1 x D2} and concept t:

        W_t      = W_{t-1} + A_t B_t = W_init + sum_{t'<=t} A_t' B_t'      A_t (D1, r) starts at zero, B_t (r, D2)
        P_{t-1}  = sum_{t'<t} A_t' B_t' = W_{t-1} - W_init                 a sum of products, not a product of sums
        L_forget = sum over layers of || |P_{t-1}| (.) (A_t B_t) ||_F^2    in fp32; zero at t = 1
        L        = L_diffusion + lambda L_forget

    The penalty's derivative by Delta = A_t B_t is 2 P^2 (.) Delta: elastic weight consolidation (arXiv 1612.00796)
    around W_{t-1} with importance P^2. V*_t starts as a random vector and no class noun follows it, so that two
    concepts of one class share no word.
    """

    name: ClassVar[str] = "c-lora"
    source: ClassVar[str] = "arXiv 2304.06027 (its equations, from accounts of it; the authors publish no code)"

    learning_rate: float = 1e-3
    """Learning rate of the factors."""
    vectors: int = 3
    """How many vectors the token stands for: what they learn, no earlier concept is in the way of."""
    use_class_noun: bool = False
    """Say the class noun after the token in prompts. The paper leaves it out."""
    forget_weight: float = 10.0
    """lambda, for the sum over layers and entries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, not_negative=("forget_weight",))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> CLoraLearner:
        return CLoraLearner(self, name, class_noun, base, earlier, generator)
