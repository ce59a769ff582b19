"""Sequential LoRA: what most people do today, and the baseline of every continual method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from mnemon.adapters import LowRank
from mnemon.methods import parts
from mnemon.methods.base import Method, TrainedConcept
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings


class LoraLearner(TokenLearner):
    """A_t, B_t of every target module and the token vector V*_t."""

    def __init__(
        self, method: "Lora", name: str, class_noun: str | None, base: Base, generator: torch.Generator
    ) -> None:
        token = parts.VectorToken(parts.start_vectors(base, method.vectors, generator))
        super().__init__(name, class_noun, token, method.token_lr)
        self.learning_rate = method.learning_rate
        self.target_modules = list(base.target_modules())
        self.factors = torch.nn.ModuleList(
            LowRank(*parts.start_factors(layer, method.rank, generator), trainable=True)
            for layer in base.target_modules().values()
        )

    def deltas(self) -> Mapping[str, LowRank]:
        return dict(zip(self.target_modules, self.factors, strict=True))  # type: ignore[arg-type]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.factors.parameters()), "lr": self.learning_rate}, *super().parameter_groups()]

    def finish(self) -> TrainedConcept:
        kept = {
            target: LowRank(delta.up.detach().cpu().clone(), delta.down.detach().cpu().clone())
            for target, delta in self.deltas().items()
        }
        return replace(super().finish(), deltas=kept)


@dataclass(frozen=True)
class Lora(Method):
    """Low-rank adaptation (arXiv 2106.09685) of the layers that turn text into keys and values, one concept after
    another, with a trained token:

        W_t = W_{t-1} + A_t B_t        A_t in R^{D1 x r} (`up`), starts at zero;  B_t in R^{r x D2} (`down`), random

    W_{t-1} holds all earlier concepts and is frozen; nothing guards it.
    """

    name: ClassVar[str] = "lora"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, and the token"
    stores: ClassVar[str] = "the factors and the token's vectors"
    fuses: ClassVar[bool] = False
    order_free: ClassVar[bool] = False
    can_remove: ClassVar[bool] = True
    needs_class_images: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2106.09685, trained in sequence"

    rank: int = 16
    """r, the width of the factors."""
    learning_rate: float = 2e-3
    """Learning rate of the factors."""
    token_lr: float = 5e-3
    """Learning rate of the token's vectors."""
    vectors: int = 1
    """How many vectors the token stands for."""
    use_class_noun: bool = True
    """Say the class noun after the token in prompts."""
    steps: int = 200
    """Training steps a concept."""
    batch_size: int = 8
    """Images a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("rank", "learning_rate", "token_lr", "vectors", "batch_size"), ("steps",))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> LoraLearner:
        return LoraLearner(self, name, class_noun, base, generator)
