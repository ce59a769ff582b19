"""ED-LoRA (Mix-of-Show: Gu et al., arXiv 2305.18292): how several methods learn one concept, before they differ.

Not covered: the factors on queries, outputs, self-attention and the text encoder, the attention regulariser, the stop
of token training at a norm, and the dropping of factors.
"""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.adapters import LowRank
from mnemon.methods import parts
from mnemon.methods.base import Method, TrainedConcept
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings

VECTORS = 2
"""V_rand and V_class."""


def start_tokens(base: Base, class_noun: str | None, generator: torch.Generator) -> dict[str, Tensor]:
    """V_rand V_class by text encoder, (layers, 2, width): a random vector, and the noun's embedding (random without a
    noun). They start alike for every layer."""
    random = parts.start_vectors(base, VECTORS, generator)
    if class_noun is not None:
        nouns = parts.word_embeddings(base, class_noun, 1)
        random = {encoder: torch.cat([both[:1], nouns[encoder]]) for encoder, both in random.items()}
    layers = len(base.cross_attention_layers())
    return {encoder: both.repeat(layers, 1, 1) for encoder, both in random.items()}


class EdLoraLearner(TokenLearner):
    """A_t, B_t of every target module, and V_rand V_class of every layer."""

    def __init__(
        self, method: "EdLora", name: str, class_noun: str | None, base: Base, generator: torch.Generator
    ) -> None:
        token = parts.VectorToken(start_tokens(base, class_noun, generator))
        super().__init__(name, class_noun, token, method.token_lr)
        self.method = method
        self.target_modules = list(base.target_modules())
        self.factors = nn.ModuleList(self.start_factor(layer, generator) for layer in base.target_modules().values())

    def start_factor(self, layer: nn.Linear, generator: torch.Generator) -> LowRank:
        """The change of one target module as it starts."""
        return LowRank(*parts.start_factors(layer, self.method.rank, generator), trainable=True)

    def deltas(self) -> Mapping[str, LowRank]:
        return dict(zip(self.target_modules, self.factors, strict=True))  # type: ignore[arg-type]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.factors.parameters()), "lr": self.method.learning_rate},
            *super().parameter_groups(),
        ]

    def finish(self) -> TrainedConcept:
        kept = {
            target: LowRank(delta.up.detach().cpu().clone(), delta.down.detach().cpu().clone(), delta.scale)
            for target, delta in self.deltas().items()
        }
        return replace(super().finish(), deltas=kept)


@dataclass(frozen=True)
class EdLora(Method, ABC):
    """A concept is V_rand V_class, layer-wise, and low-rank factors, as ED-LoRA learns it:

        W = W_0 + A_t B_t                     A_t in R^{D1 x r} (`up`), starts at zero;  B_t in R^{r x D2} (`down`)
        V_rand^l, V_class^l, l = 1..L         two vectors for each of the L layers that listen to text

    Layer l hears the prompt with V_rand^l V_class^l in it, encoded on its own. V_rand starts at random and V_class as
    the class noun's embedding, so the token stands for both and no noun follows it in a prompt.
    """

    static_text_features = True

    rank: int = 16
    """r, the width of the factors."""
    learning_rate: float = 2e-3
    """Learning rate of the factors."""
    token_lr: float = 5e-3
    """Learning rate of the token's vectors."""
    steps: int = 200
    """Training steps a concept."""
    batch_size: int = 8
    """Images a step."""

    def __post_init__(self) -> None:
        check_settings(self, ("rank", "learning_rate", "token_lr", "batch_size"), ("steps",))

    def prompt_name(self, name: str, class_noun: str | None) -> str:
        return f"<{name}>"

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> EdLoraLearner:
        return EdLoraLearner(self, name, class_noun, base, generator)
