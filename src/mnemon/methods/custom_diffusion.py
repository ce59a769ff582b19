"""Custom Diffusion (Kumari et al., CVPR 2023, arXiv 2212.04488), one concept after another.

Not covered: compression of the stored changes by a singular value decomposition, and the augmentation by resized
photos. Written from the equations; no code of the authors is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.adapters import Dense
from mnemon.methods import parts
from mnemon.methods.base import Method, TrainedConcept
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings

RARE_WORDS = ("ktn", "pll", "ucd")
"""Where V*_t starts, each word for one concept: hardly any text has them, so they mean next to nothing to the base."""


class TextDense(Dense):
    """A dense change that takes its gradient from the text, not from the start mark that every prompt begins with."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Δ x for inputs (batch, length, d_in)."""
        change = super().forward(inputs)
        return torch.cat([change[:, :1].detach(), change[:, 1:]], dim=1)


class CustomDiffusionLearner(TokenLearner):
    """Delta_t of every target module, all entries free, and the token vector V*_t."""

    def __init__(
        self,
        method: "CustomDiffusion",
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> None:
        word = unused_word(earlier)
        token = parts.VectorToken(parts.vectors_like(base, word, 1, generator))
        super().__init__(name, class_noun, token, method.token_lr)
        self.learning_rate, self.word = method.learning_rate, word
        self.changes = nn.ParameterList(
            torch.zeros(layer.out_features, layer.in_features, device=base.device)
            for layer in base.target_modules().values()
        )
        self._deltas = {
            target: TextDense(change) for target, change in zip(base.target_modules(), self.changes, strict=True)
        }

    def deltas(self) -> Mapping[str, TextDense]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.changes.parameters()), "lr": self.learning_rate}, *super().parameter_groups()]

    def finish(self) -> TrainedConcept:
        kept = {target: Dense(delta.matrix().detach().cpu().clone()) for target, delta in self._deltas.items()}
        return replace(super().finish(), deltas=kept, facts={"token_start": self.word})


def unused_word(earlier: Sequence[TrainedConcept]) -> str | None:
    """The first rare word at which the token of no earlier concept started; none when all are taken."""
    taken = {one.facts.get("token_start") for one in earlier}
    return next((word for word in RARE_WORDS if word not in taken), None)


@dataclass(frozen=True)
class CustomDiffusion(Method):
    """Full fine-tuning of the layers that turn text into keys and values, one concept after another, with a token:

        W_t = W_{t-1} + Delta_t      Delta_t in R^{D1 x D2}, every entry trained, starts at zero
        L   = L_diffusion + w L_prior

    W_{t-1} holds all earlier concepts; training Delta_t is training the weight itself, from W_{t-1} on. The keys and
    values of the text's start mark give no gradient to Delta_t. V*_t starts as the embedding of a rare word that no
    earlier concept has taken, or at random when there is none left, and the class noun follows it: "V* dog". L_prior
    is the loss on images of the class (about 200, w = 1 in the paper); the training loop adds it if they are given.
    """

    name: ClassVar[str] = "custom-diffusion"
    trains: ClassVar[str] = "the whole weights of the cross-attention keys and values, and the token"
    stores: ClassVar[str] = "the changes of these weights, every entry, and the token's vector"
    fuses: ClassVar[bool] = False
    order_free: ClassVar[bool] = False
    can_remove: ClassVar[bool] = True
    needs_class_images: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2212.04488, trained in sequence"

    learning_rate: float = 2e-4
    """Learning rate of the weights."""
    token_lr: float = 5e-3
    """Learning rate of the token's vector."""
    use_class_noun: bool = True
    """Say the class noun after the token in prompts."""
    steps: int = 200
    """Training steps a concept."""
    batch_size: int = 8
    """Images a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("learning_rate", "token_lr", "batch_size"), ("steps",))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> CustomDiffusionLearner:
        return CustomDiffusionLearner(self, name, class_noun, base, earlier, generator)
