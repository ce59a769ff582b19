"""Textual inversion (Gal et al., arXiv 2208.01618): a new word for a model that stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mnemon.adapters import Delta
from mnemon.methods import parts
from mnemon.methods.base import Learned, Method
from mnemon.methods.settings import check_settings
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base


@dataclass(frozen=True)
class TextualInversion(Method):
    """The concept's pictures are explained by n vectors in place of a word's embedding, and by nothing else:

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

    token_rate: float = 5e-3
    """Learning rate of the token's vectors."""
    vectors: int = 1
    """n, how many vectors the token stands for."""
    class_word: bool = False
    """Say the class noun after the token in prompts. The paper leaves it out, and starts the token there instead."""
    steps: int = 200
    """Training steps a concept."""
    batch: int = 8
    """Pictures a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("token_rate", "vectors", "batch"), ("steps",))

    def begin(
        self, name: str, noun: str | None, base: Base, earlier: Sequence[Learned], generator: torch.Generator
    ) -> TokenLearner:
        start = parts.vectors_like(base, noun, self.vectors, generator)
        return TokenLearner(name, noun, parts.VectorToken(start), self.token_rate)

    def compose(self, base: Base, learned: Sequence[Learned], prompt: str | None = None) -> dict[str, Delta]:
        return {}
