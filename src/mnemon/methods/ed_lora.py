"""ED-LoRA (Mix-of-Show: Gu et al., arXiv 2305.18292): how several methods train a concept.

Not covered: the factors on queries, outputs, self-attention and the text encoder, the attention regulariser, the stop
of token training at a norm, and the dropping of factors.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mnemon.adapters import LowRank
from mnemon.methods import parts
from mnemon.methods.base import Method, Start
from mnemon.methods.low_rank import LowRankLearner
from mnemon.models.base import Base
from mnemon.settings import PositiveFloat, PositiveInt

VECTORS = 2
"""V_rand and V_class."""


def init_tokens(base: Base, class_noun: str | None, generator: torch.Generator) -> dict[str, Tensor]:
    """V_rand V_class by text encoder, (layers, 2, width): a random vector, and the noun's embedding (random without a
    noun). They start alike for every layer."""
    random = parts.random_embeddings(base, VECTORS, generator)
    if class_noun is not None:
        nouns = parts.word_embeddings(base, class_noun, 1)
        random = {encoder: torch.cat([both[:1], nouns[encoder]]) for encoder, both in random.items()}
    layers = len(base.cross_attention_layers())
    return {encoder: both.repeat(layers, 1, 1) for encoder, both in random.items()}


class EdLoraLearner(LowRankLearner):
    """A_t, B_t of every target module, and V_rand V_class of every layer."""

    def __init__(self, method: "EdLora", start: Start, factors: Sequence[LowRank] | None = None) -> None:
        """`factors`: how the changes start, one for each target module; as LoRA's if not given."""
        token = parts.VectorToken(init_tokens(start.base, start.class_noun, start.generator))
        if factors is None:
            factors = parts.init_low_rank(start.base, method.rank, start.generator)
        super().__init__(start, token, method.token_lr, factors, method.learning_rate)


@dataclass(frozen=True)
class EdLora(Method, ABC):
    """A concept is V_rand V_class, layer-wise, and low-rank factors, as ED-LoRA trains it:

        W = W_0 + A_t B_t                     A_t in R^{D1 x r} (`up`), starts at zero;  B_t in R^{r x D2} (`down`)
        V_rand^l, V_class^l, l = 1..L         two embeddings for each of the L cross-attention layers

    Layer l reads the prompt with V_rand^l V_class^l in it, encoded on its own. V_rand starts at random and V_class as
    the class noun's embedding, so the token stands for both and no noun follows it in a prompt.
    """

    static_text_features = True

    rank: PositiveInt = 16
    """r, the rank of the factors."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of the factors."""
    token_lr: PositiveFloat = 5e-3
    """Learning rate of the token embeddings."""

    def prompt_name(self, name: str, class_noun: str | None) -> str:
        return f"<{name}>"
