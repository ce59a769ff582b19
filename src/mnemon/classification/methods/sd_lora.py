"""SD-LoRA (Wu et al., ICLR 2025, arXiv 2501.13198): directions of earlier tasks are kept, their magnitudes trained on.

The released code is not followed where it is unlike the paper: it starts the magnitude of a finished direction anew.
Here a direction is normalised over all layers together, and its magnitude starts where the task that learned it ended,
so that a new task begins at the model before it. Not covered: lower ranks for later tasks (RR), and absorbing a
direction that earlier ones explain (KD).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mnemon.adapters import Delta, LowRank, attach, sum_deltas
from mnemon.classification.backbone import Backbone
from mnemon.classification.methods.adapters import Changed, LowRankLearner, LowRankMethod
from mnemon.classification.methods.base import Start, TrainedTask
from mnemon.settings import PositiveFloat, PositiveInt

MAGNITUDES = "magnitudes"


class Directions(Delta):
    """sum_s alpha_s A_s B_s of one layer; `weigh` takes magnitudes of every step."""

    kind: ClassVar[str] = "low_rank"
    unit: Tensor
    up: Tensor
    down: Tensor

    def __init__(self, directions: Sequence[LowRank]) -> None:
        super().__init__()
        unit = torch.cat([one.up.detach() for one in directions], 1)
        self.ranks = torch.tensor([one.rank for one in directions])
        self.register_buffer("unit", unit)
        self.register_buffer("up", unit)
        self.register_buffer("down", torch.cat([one.down.detach() for one in directions], 0))

    def weigh(self, magnitudes: Tensor) -> None:
        """Take alpha (directions,), in the graph of it."""
        self.up = self.unit * magnitudes.repeat_interleave(self.ranks.to(magnitudes.device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    def matrix(self) -> Tensor:
        return self.up @ self.down

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(linear(inputs, self.down), self.up)

    def scaled(self, factor: float) -> LowRank:
        return LowRank(self.up.detach(), self.down, factor)

    def state(self) -> dict[str, Tensor]:
        return LowRank(self.up.detach(), self.down).state()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Directions":
        return cls([LowRank.from_state(state)])


class SdLoraLearner(LowRankLearner):
    """A_t, B_t of every target, and the magnitudes of the earlier directions."""

    def __init__(self, method: "SdLora", start: Start) -> None:
        super().__init__(method, start)
        device = start.backbone.device
        past = (
            start.earlier[-1].extra[MAGNITUDES].to(device).clone() if start.earlier else torch.zeros(0, device=device)
        )
        self.magnitudes = nn.Parameter(past)
        self.directions: dict[str, Directions] = {}
        if start.earlier:
            self.directions = {
                target: Directions([low_rank(task.deltas[target]) for task in start.earlier]).to(device)
                for target in self.layers
            }

    def parameter_groups(self) -> list[dict[str, Any]]:
        (factors,) = super().parameter_groups()
        return [{**factors, "params": [*factors["params"], self.magnitudes]}]

    def attached(self, backbone: Backbone) -> AbstractContextManager[object]:
        undo = ExitStack()
        undo.enter_context(attach(self.layers, self.directions))
        undo.enter_context(attach(self.layers, self.current()))
        return undo

    def before_step(self, generator: torch.Generator, progress: float) -> None:
        for directions in self.directions.values():
            directions.weigh(self.magnitudes)

    def deltas(self) -> dict[str, Delta]:
        """The direction of length 1: A_t over the magnitude, B_t."""
        size = self._own_magnitude()
        copies = {target: delta.frozen_copy() for target, delta in self.current().items()}
        return {target: LowRank(one.up.data / size, one.down.data) for target, one in copies.items()}

    def extra(self) -> dict[str, Tensor]:
        return {MAGNITUDES: torch.cat([self.magnitudes.detach().cpu(), torch.tensor([self._own_magnitude()])])}

    def _own_magnitude(self) -> float:
        """sqrt(sum over layers of (||A|| ||B||)^2), 1 for a change that is still zero."""
        own = self.current().values()
        squares = [one.up.detach().square().sum() * one.down.detach().square().sum() for one in own]
        return float(torch.stack(squares).sum().sqrt()) or 1.0


@dataclass(frozen=True)
class SdLora(LowRankMethod):
    """Low-rank changes taken apart into directions and magnitudes; nothing but the magnitudes of earlier ones moves:

    W_t = W_0 + sum_{s<t} alpha_s D_s + A_t B_t          D_s = A_s B_s over its size; alpha_s of all s trained
    size = sqrt(sum over layers of ||A||^2 ||B||^2)      one alpha_s for all layers; it starts as the size
    """

    name: ClassVar[str] = "sd-lora"
    source: ClassVar[str] = "arXiv 2501.13198 (a reading of it, see the code)"
    trains: ClassVar[str] = "low-rank factors of the queries and values, and the magnitudes of earlier ones"
    stores: ClassVar[str] = "the factors and all magnitudes"
    on_bare_backbone: ClassVar[bool] = True

    rank: PositiveInt = 10
    """r, the rank of the factors."""
    targets: Changed = "qv"
    """Which projections are changed: queries, keys and values, keys and values, or queries and values."""
    learning_rate: PositiveFloat = 8e-3
    """Of Adam, in the first epoch; it falls along a cosine to 0.016 of that in the last."""

    def begin(self, start: Start) -> SdLoraLearner:
        return SdLoraLearner(self, start)

    def compose(self, learned: Sequence[TrainedTask]) -> dict[str, Delta]:
        if not learned:
            return {}
        scales = learned[-1].extra[MAGNITUDES].tolist()
        scaled: list[Mapping[str, Delta]] = [
            {target: delta.scaled(scale) for target, delta in task.deltas.items()}
            for task, scale in zip(learned, scales, strict=True)
        ]
        return dict(sum_deltas(scaled))


def low_rank(delta: Delta) -> LowRank:
    assert isinstance(delta, LowRank)
    return delta
