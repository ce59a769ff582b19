"""What all LoRA methods share: low-rank factors of every target module, beside a token."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from mnemon.adapters import LowRank
from mnemon.methods import parts
from mnemon.methods.base import Learner, Method, Start
from mnemon.settings import PositiveFloat, PositiveInt


class LowRankLearner(Learner, ABC):
    """A_t, B_t of every target module, and the token."""

    def __init__(
        self, start: Start, token: parts.Token, token_lr: float, factors: Sequence[LowRank], learning_rate: float
    ) -> None:
        super().__init__(start, token, token_lr)
        self.learning_rate = learning_rate
        self.target_modules = list(start.base.target_modules())
        self.factors = nn.ModuleList(factors)

    def deltas(self) -> Mapping[str, LowRank]:
        return dict(zip(self.target_modules, self.factors, strict=True))  # type: ignore[arg-type]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.factors.parameters()), "lr": self.learning_rate}, self.token_group()]

    def stored_deltas(self) -> dict[str, LowRank]:
        return {target: delta.frozen_copy() for target, delta in self.deltas().items()}


class LoraLearner(LowRankLearner):
    """As `LoraMethod` starts them: A_t zero, B_t random."""

    def __init__(self, method: "LoraMethod", start: Start) -> None:
        token = parts.VectorToken(method.init_embeddings(start))
        factors = parts.init_low_rank(start.base, method.rank, start.generator)
        super().__init__(start, token, method.token_lr, factors, method.learning_rate)


@dataclass(frozen=True)
class LoraMethod(Method, ABC):
    """Low-rank factors of the cross-attention keys and values, and a token."""

    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, and the token"
    stores: ClassVar[str] = "the factors and the token's vectors"

    rank: PositiveInt = 16
    """r, the rank of the factors."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of the factors."""

    def begin(self, start: Start) -> Learner:
        return LoraLearner(self, start)
