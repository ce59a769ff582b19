"""Textual inversion (Gal et al., arXiv 2208.01618): a new word for a model that stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mnemon.adapters import Delta
from mnemon.methods import parts
from mnemon.methods.base import Method, TrainedConcept
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings


@dataclass(frozen=True)
class TextualInversion(Method):
    """The concept's images are explained by n vectors in place of a word's embedding, and by nothing else:

        v_t = argmin_v  E || target - f(z_s, s, c(prompt, v)) ||^2       v in R^{n x width}, one such for each encoder

    z_s are the noised latents at timestep s, f is the frozen base and c its frozen text encoder, into which v goes
    where the token stands. v starts as the class noun's embedding, n times, or at random where there is no noun. No
    weight changes, so no concept can disturb another: nothing is forgotten, and fidelity ends where the base's does.
    """

    name: ClassVar[str] = "textual-inversion"
    trains: ClassVar[str] = "the token"
    stores: ClassVar[str] = "the token's vectors"
    fuses: ClassVar[bool] = False
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    can_remove: ClassVar[bool] = True
    needs_class_images: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2208.01618"

    token_lr: float = 5e-3
    """Learning rate of the token's vectors."""
    vectors: int = 1
    """n, how many vectors the token stands for."""
    use_class_noun: bool = False
    """Say the class noun after the token in prompts. The paper leaves it out, and starts the token there instead."""
    steps: int = 200
    """Training steps a concept."""
    batch_size: int = 8
    """Images a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("token_lr", "vectors", "batch_size"), ("steps",))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> TokenLearner:
        start = parts.vectors_like(base, class_noun, self.vectors, generator)
        return TokenLearner(name, class_noun, parts.VectorToken(start), self.token_lr)

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        return {}
