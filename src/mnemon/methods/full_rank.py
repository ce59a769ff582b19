"""What the methods share that train whole weight matrices, as Custom Diffusion does (Kumari et al., CVPR 2023, arXiv
2212.04488).

Not covered: compression of the stored changes by a singular value decomposition, and the augmentation by resized
photos. Written from the equations; no code of the authors is used.
"""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.adapters import Dense
from mnemon.methods import parts
from mnemon.methods.base import Learner, Method, Start, TrainedConcept
from mnemon.settings import PositiveFloat

RARE_WORDS = ("ktn", "pll", "ucd")
"""Where V*_t starts, one word per concept: they hardly occur in text, so they mean next to nothing to the base."""


class TextDense(Dense):
    """A dense change that takes its gradient from the text, not from the BOS token that every prompt begins with. For
    bases whose prompts begin with one (`Base.fixed_first_token`)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Δ x for inputs (batch, length, d_in)."""
        change = super().forward(inputs)
        return torch.cat([change[:, :1].detach(), change[:, 1:]], dim=1)


class FullRankLearner(Learner):
    """Delta_t of every target module, all entries free, and the token V*_t."""

    def __init__(self, method: "FullRankMethod", start: Start) -> None:
        self.word = unused_word(start.earlier) if method.rare_words else None
        super().__init__(start, parts.VectorToken(method.init_embeddings(start, self.word)), method.token_lr)
        self.learning_rate = method.learning_rate
        layers = start.base.target_modules()
        self.changes = nn.ParameterList(
            torch.zeros(layer.out_features, layer.in_features, device=start.base.device) for layer in layers.values()
        )
        kind = TextDense if start.base.fixed_first_token else Dense
        self._deltas: dict[str, Dense] = {
            target: kind(change) for target, change in zip(layers, self.changes, strict=True)
        }

    def deltas(self) -> Mapping[str, Dense]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.changes.parameters()), "lr": self.learning_rate}, self.token_group()]

    def stored_deltas(self) -> dict[str, Dense]:
        return {target: Dense(delta.matrix().detach().cpu().clone()) for target, delta in self._deltas.items()}

    def facts(self) -> dict[str, Any]:
        return {"token_start": self.word}


def unused_word(earlier: Sequence[TrainedConcept]) -> str | None:
    """The first rare word at which the token of no earlier concept started; none when all are taken."""
    taken = {concept.facts.get("token_start") for concept in earlier}
    return next((word for word in RARE_WORDS if word not in taken), None)


@dataclass(frozen=True)
class FullRankMethod(Method, ABC):
    """Whole weights of the cross-attention keys and values, and a token that starts at a rare word."""

    trains: ClassVar[str] = "the whole weights of the cross-attention keys and values, and the token"
    stores: ClassVar[str] = "the changes of these weights, every entry, and the token's vector"

    learning_rate: PositiveFloat = 2e-4
    """Learning rate of the weights."""
    rare_words: bool = True
    """Start the embeddings at a rare word that no earlier concept has taken, as long as there is one."""

    def init_embeddings(self, start: Start, rare_word: str | None = None) -> dict[str, Tensor]:
        if rare_word is None:
            return super().init_embeddings(start)
        return parts.init_embeddings(start.base, rare_word, self.num_vectors, start.generator)

    def begin(self, start: Start) -> Learner:
        return FullRankLearner(self, start)
