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
from mnemon.methods.base import Learned, Method
from mnemon.methods.settings import check_settings
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base

RARE_WORDS = ("ktn", "pll", "ucd")
"""Where V*_t starts, each word for one concept: hardly any text has them, so they mean next to nothing to the base."""


class TextDense(Dense):
    """A dense change that takes its gradient from the text, not from the start mark that every prompt begins with."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Δ x for inputs (batch, length, d_in)."""
        change = super().forward(inputs)
        return torch.cat([change[:, :1].detach(), change[:, 1:]], dim=1)


class CustomDiffusionLearner(TokenLearner):
    """Delta_t of every site, all entries free, and the token vector V*_t."""

    def __init__(
        self,
        method: "CustomDiffusion",
        name: str,
        noun: str | None,
        base: Base,
        earlier: Sequence[Learned],
        generator: torch.Generator,
    ) -> None:
        word = unused_word(earlier)
        token = parts.VectorToken(parts.vectors_like(base, word, 1, generator))
        super().__init__(name, noun, token, method.token_rate)
        self.rate, self.word = method.rate, word
        self.changes = nn.ParameterList(
            torch.zeros(layer.out_features, layer.in_features, device=base.device) for layer in base.sites().values()
        )
        self._deltas = {site: TextDense(change) for site, change in zip(base.sites(), self.changes, strict=True)}

    def deltas(self) -> Mapping[str, TextDense]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.changes.parameters()), "lr": self.rate}, *super().parameter_groups()]

    def finish(self) -> Learned:
        kept = {site: Dense(delta.matrix().detach().cpu().clone()) for site, delta in self._deltas.items()}
        return replace(super().finish(), deltas=kept, facts={"token_start": self.word})


def unused_word(earlier: Sequence[Learned]) -> str | None:
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
    is the loss on pictures of the class (about 200, w = 1 in the paper); the training loop adds it if they are given.
    """

    name: ClassVar[str] = "custom-diffusion"
    trains: ClassVar[str] = "the whole weights of the cross-attention keys and values, and the token"
    stores: ClassVar[str] = "the changes of these weights, every entry, and the token's vector"
    fuses: ClassVar[bool] = False
    order_free: ClassVar[bool] = False
    can_remove: ClassVar[bool] = True
    needs_class_images: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2212.04488, trained in sequence"

    rate: float = 2e-4
    """Learning rate of the weights."""
    token_rate: float = 5e-3
    """Learning rate of the token's vector."""
    class_word: bool = True
    """Say the class noun after the token in prompts."""
    steps: int = 200
    """Training steps a concept."""
    batch: int = 8
    """Pictures a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("rate", "token_rate", "batch"), ("steps",))

    def begin(
        self, name: str, noun: str | None, base: Base, earlier: Sequence[Learned], generator: torch.Generator
    ) -> CustomDiffusionLearner:
        return CustomDiffusionLearner(self, name, noun, base, earlier, generator)
