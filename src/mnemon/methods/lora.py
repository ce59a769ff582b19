"""Sequential LoRA: what most people do today, and the baseline of every continual method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from mnemon.adapters import LowRank
from mnemon.methods import parts
from mnemon.methods.base import Learned, Method
from mnemon.methods.settings import check_settings
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base


class LoraLearner(TokenLearner):
    """A_t, B_t of every site and the token vector V*_t."""

    def __init__(self, method: "Lora", name: str, noun: str | None, base: Base, generator: torch.Generator) -> None:
        token = parts.VectorToken(parts.start_vectors(base, method.vectors, generator))
        super().__init__(name, noun, token, method.token_rate)
        self.rate = method.rate
        self.sites = list(base.sites())
        self.factors = torch.nn.ModuleList(
            LowRank(*parts.start_factors(layer, method.rank, generator), trainable=True)
            for layer in base.sites().values()
        )

    def deltas(self) -> Mapping[str, LowRank]:
        return dict(zip(self.sites, self.factors, strict=True))  # type: ignore[arg-type]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.factors.parameters()), "lr": self.rate}, *super().parameter_groups()]

    def finish(self) -> Learned:
        kept = {
            site: LowRank(delta.up.detach().cpu().clone(), delta.down.detach().cpu().clone())
            for site, delta in self.deltas().items()
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
    rate: float = 2e-3
    """Learning rate of the factors."""
    token_rate: float = 5e-3
    """Learning rate of the token's vectors."""
    vectors: int = 1
    """How many vectors the token stands for."""
    class_word: bool = True
    """Say the class noun after the token in prompts."""
    steps: int = 200
    """Training steps a concept."""
    batch: int = 8
    """Pictures a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("rank", "rate", "token_rate", "vectors", "batch"), ("steps",))

    def begin(
        self, name: str, noun: str | None, base: Base, earlier: Sequence[Learned], generator: torch.Generator
    ) -> LoraLearner:
        return LoraLearner(self, name, noun, base, generator)
