"""A prompt as token ids, and the weights of its words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mnemon.models.weighted_prompt import weight_at


class Piece(NamedTuple):
    """A piece of text, where in the prompt it starts, and the concept after it with its place, None at the end."""

    text: str
    start: int
    concept: str | None = None
    place: int = 0


@dataclass
class TokenizedPrompt:
    """One prompt as token ids.

    Attributes:
        ids: BOS, tokens, EOS and padding.
        positions: of concept embeddings among the ids.
        vectors: the embedding (width,) for each position.
        length: tokens between BOS and padding, EOS included.
        start: index of BOS: the number of padding ids to the left.
        weights: of the ids that have another weight than 1, by their index without padding to the left.
    """

    ids: list[int]
    positions: list[int]
    vectors: list[Tensor]
    length: int = 0
    start: int = 0
    weights: dict[int, float] = field(default_factory=dict)


def note_weights(tokenized: TokenizedPrompt, prompt: str, places: Sequence[int]) -> None:
    """Note the weights of the ids that come next; they end at these places of the prompt."""
    weights = enumerate((weight_at(prompt, place) for place in places), start=len(tokenized.ids))
    tokenized.weights |= {index: weight for index, weight in weights if weight != 1}


def weights_of(tokenized: Sequence[TokenizedPrompt]) -> Tensor:
    """(batch, length), with padding."""
    weights = torch.ones(len(tokenized), len(tokenized[0].ids))
    for row, prompt in enumerate(tokenized):
        for place, weight in prompt.weights.items():
            weights[row, prompt.start + place] = weight
    return weights


def weighted(weights: Tensor, places: Tensor, states: Tensor, of_empty: Tensor) -> Tensor:
    """States (batch, length, width) with each position's difference to that of the empty prompt (1, length of that,
    width) at its place multiplied by its weight. Those of weight 1 stay bit for bit."""
    empty, factors = of_empty[0, places.to(states.device)], weights.to(states)[..., None]
    return torch.where(factors == 1, states, empty + factors * (states - empty))
