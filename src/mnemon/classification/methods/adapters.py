"""What the methods share that change projections of self-attention by low-rank products."""

from abc import ABC
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from mnemon.adapters import Delta, LowRank, attach
from mnemon.classification.backbone import Backbone
from mnemon.classification.methods.base import ClassifierMethod, Learner, Start
from mnemon.methods.parts import init_factors
from mnemon.settings import PositiveInt

Changed = Literal["qkv", "kv", "qv"]
"""Which projections of self-attention a method changes."""


class LowRankLearner(Learner):
    """A_t, zero at first, and B_t, random, of every target."""

    def __init__(self, method: "LowRankMethod", start: Start) -> None:
        super().__init__()
        self.learning_rate = method.learning_rate
        self.layers = start.backbone.projections(method.targets)
        self.factors = nn.ModuleList(self.start_factors(method, start))

    def start_factors(self, method: "LowRankMethod", start: Start) -> list[LowRank]:
        """Trainable factors for each of `layers`, in their order."""
        return [
            LowRank(*init_factors(layer, method.rank, start.generator), trainable=True)
            for layer in self.layers.values()
        ]

    def current(self) -> dict[str, LowRank]:
        """The trained changes by layer."""
        return dict(zip(self.layers, self.factors, strict=True))  # type: ignore[arg-type]

    def parameter_groups(self) -> list[dict[str, Any]]:
        trained = [parameter for parameter in self.factors.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": self.learning_rate}]

    def attached(self, backbone: Backbone) -> AbstractContextManager[object]:
        return attach(self.layers, self.current())

    def deltas(self) -> dict[str, Delta]:
        return {target: delta.frozen_copy() for target, delta in self.current().items()}


@dataclass(frozen=True)
class LowRankMethod(ClassifierMethod, ABC):
    """Low-rank factors of the projections of self-attention."""

    trains: ClassVar[str] = "low-rank factors of the queries, keys and values of every block"
    stores: ClassVar[str] = "the factors"

    rank: PositiveInt = 64
    """r, the rank of the factors."""
    targets: Changed = "qkv"
    """Which projections are changed: queries, keys and values, keys and values, or queries and values."""

    def begin(self, start: Start) -> Learner:
        return LowRankLearner(self, start)
