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
from mnemon.settings import PositiveFloat, PositiveInt


class EdLoraLearner(LowRankLearner):
    """A_t, B_t of every target module, and V_rand V_class of every layer."""

    def __init__(self, method: "EdLora", start: Start, factors: Sequence[LowRank] | None = None) -> None:
        """`factors`: how the changes start, one for each target module; as LoRA's if not given."""
        token = parts.VectorToken(method.init_embeddings(start))
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
    num_vectors: PositiveInt = 2
    """Number of embeddings per placeholder token and layer."""
    class_vector: bool = True
    """Start the last of them at the class noun's embedding (V_class), whatever `token_init` says of the others."""
    use_class_noun: bool = False
    """Put the class noun after the token in prompts. The paper leaves it out."""

    def init_embeddings(self, start: Start) -> dict[str, Tensor]:
        """(layers, vectors, width) by text encoder. They start alike for every layer."""
        vectors, layers = super().init_embeddings(start), len(start.base.cross_attention_layers())
        if self.class_vector and start.class_noun is not None:
            nouns = parts.word_embeddings(start.base, start.class_noun, 1)
            vectors = {encoder: torch.cat([rows[:-1], nouns[encoder]]) for encoder, rows in vectors.items()}
        return {encoder: rows.repeat(layers, 1, 1) for encoder, rows in vectors.items()}
