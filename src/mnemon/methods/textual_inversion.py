"""Textual inversion (Gal et al., arXiv 2208.01618): a new token for a model that stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mnemon.adapters import Delta
from mnemon.methods import parts
from mnemon.methods.base import Learner, Method, Start, TokenInit, TrainedConcept
from mnemon.models.base import Base


class TokenLearner(Learner):
    """The token embeddings V*_t and nothing else."""

    def deltas(self) -> Mapping[str, Delta]:
        return {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [self.token_group()]

    def stored_deltas(self) -> Mapping[str, Delta]:
        return {}


@dataclass(frozen=True)
class TextualInversion(Method):
    """n embeddings in place of a word's are optimised to explain the concept's images, and nothing else is trained:

        v_t = argmin_v  E || target - f(z_s, s, c(prompt, v)) ||^2       v in R^{n x width}, one such for each encoder

    z_s are the noised latents at timestep s, f is the frozen base and c its frozen text encoder, into which v goes
    where the token stands. v starts as the class noun's embedding, n times, or at random where there is no noun. No
    weight changes, so nothing is forgotten, and fidelity is limited by what the base can generate.
    """

    name: ClassVar[str] = "textual-inversion"
    trains: ClassVar[str] = "the token"
    stores: ClassVar[str] = "the token's vectors"
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2208.01618"

    token_init: TokenInit = "class_noun"
    """Where the embeddings start: at the class noun's (`class_noun`; random where there is no noun), or at random."""
    use_class_noun: bool = False
    """Put the class noun after the token in prompts. The paper leaves it out, and starts the token there instead."""

    def begin(self, start: Start) -> TokenLearner:
        vectors = self.init_embeddings(start)
        return TokenLearner(start, parts.VectorToken(vectors), self.token_lr)

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        return {}
