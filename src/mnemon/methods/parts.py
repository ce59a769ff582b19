"""Parts that several methods share: a concept's token, initial values, and the weighted L2 penalty."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, LowRank
from mnemon.models.base import Base

T = TypeVar("T")


def sample_normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal samples, made on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def sample_uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Samples uniform in 0..1, made on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def init_factors(layer: nn.Linear, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`up` (d_out, rank), zero, and `down` (rank, d_in), uniform within 1 / sqrt(d_in): their product is zero."""
    device = layer.weight.device
    down = sample_uniform((rank, layer.in_features), generator, device) * 2 - 1
    return torch.zeros(layer.out_features, rank, device=device), down / math.sqrt(layer.in_features)


def init_low_rank(base: Base, rank: int, generator: torch.Generator) -> list[LowRank]:
    """Trainable factors for each target module, in their order."""
    layers = base.target_modules().values()
    return [LowRank(*init_factors(layer, rank, generator), trainable=True) for layer in layers]


def random_embeddings(base: Base, vectors: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random embeddings (vectors, width) by text encoder, with the mean and standard deviation of its table."""
    return {
        encoder: mean + std * sample_normal((vectors, width), generator, base.device)
        for encoder, (width, mean, std) in base.embedding_statistics().items()
    }


def word_embeddings(base: Base, word: str, vectors: int) -> dict[str, Tensor]:
    """Embeddings (vectors, width) by text encoder, each the mean embedding of the word's tokens."""
    return {encoder: vector.repeat(vectors, 1) for encoder, vector in base.word_embeddings(word).items()}


def init_embeddings(base: Base, word: str | None, vectors: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Embeddings of the word, or random ones where there is none. The generator advances alike in both cases."""
    random = random_embeddings(base, vectors, generator)
    return word_embeddings(base, word, vectors) if word else random


def weighted_l2(importance: Mapping[str, Tensor], deltas: Mapping[str, Delta]) -> Tensor:
    """The sum over target modules and entries of importance (.) Delta^2, a scalar in fp32."""
    total = torch.zeros(())
    for target, weight in importance.items():
        total = total + (weight * deltas[target].matrix().square()).sum()
    return total


def relative_scale(past: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]) -> float:
    """1 / (sum of P^2 · mean of W^2), P the earlier concepts' changes and W the weights, over all target modules.

    The sum of P^2 Delta^2 times this is the mean of Delta^2 with the weights P^2, relative to the mean of W^2: it has
    no unit, so that one weight serves bases and learning rates of any size. 0 where nothing has been changed yet.
    """
    moved = float(sum(one.square().sum() for one in past.values()))
    squares = sum(float(layer.weight.detach().float().square().sum()) for layer in layers.values())
    entries = sum(layer.weight.numel() for layer in layers.values())
    return entries / (moved * squares) if moved else 0.0


def change_importance(past: Mapping[str, Delta], layers: Mapping[str, nn.Linear], relative: bool) -> dict[str, Tensor]:
    """P^2 of every layer that has been changed, for `weighted_l2`; where `relative`, scaled by `relative_scale`."""
    moved = {target: past[target].matrix() for target in layers if target in past}
    scale = relative_scale(moved, layers) if relative else 1.0
    return {target: scale * total.to(layers[target].weight.device).square() for target, total in moved.items()}


class LastOfBase(Generic[T]):
    """What was worked out of a base last: concept after concept it is the same."""

    def __init__(self) -> None:
        self._kept: tuple[object, T] | None = None

    def get(self, base: Base, make: Callable[[], T]) -> T:
        """What is kept of this base, on its device and in its dtype; made if it is of another."""
        weight = next(iter(base.target_modules().values())).weight
        key = (base.fingerprint, weight.device, weight.dtype)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, make()
        return self._kept[1]


class Token(nn.Module):
    """A concept's trainable token."""

    @abstractmethod
    def forward(self) -> dict[str, Tensor]:
        """The vectors (vectors, width) by text encoder, in the graph of the trainable parameters."""

    @abstractmethod
    def learning_rate(self, token_lr: float) -> float:
        """The learning rate at which a step moves the vectors' entries by about `token_lr`."""

    def state(self) -> dict[str, Tensor]:
        """The vectors as they are stored: detached, on the CPU."""
        return {encoder: vectors.detach().cpu().clone() for encoder, vectors in self().items()}


class VectorToken(Token):
    """The vectors themselves are trained, as in textual inversion (arXiv 2208.01618)."""

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.vectors = nn.ParameterDict({encoder: nn.Parameter(vectors) for encoder, vectors in start.items()})

    def forward(self) -> dict[str, Tensor]:
        return dict(self.vectors.items())

    def learning_rate(self, token_lr: float) -> float:
        return token_lr


class MlpToken(Token):
    """V* = MLP(1) with MLP = linear(1, hidden) - ReLU - linear(hidden, vectors · width), one for each text encoder.

    The last bias starts as `start` and the last weight small, so that V* starts near `start`.
    """

    def __init__(self, start: Mapping[str, Tensor], hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shapes = {encoder: vectors.shape for encoder, vectors in start.items()}
        self.first = nn.ParameterDict()  # weight and bias in one: with the constant input 1 only their sum matters
        self.last = nn.ParameterDict()
        self.bias = nn.ParameterDict()
        for encoder, vectors in start.items():
            device, outputs = vectors.device, vectors.numel()
            both = sample_uniform((2, hidden), generator, device) * 2 - 1  # weight and bias, within 1 / sqrt(fan-in)
            self.first[encoder] = nn.Parameter(both)
            small = 0.01 * vectors.std() / math.sqrt(hidden)
            self.last[encoder] = nn.Parameter(small * sample_normal((hidden, outputs), generator, device))
            self.bias[encoder] = nn.Parameter(vectors.flatten())

    def forward(self) -> dict[str, Tensor]:
        return {
            encoder: (self._hidden(encoder) @ self.last[encoder] + self.bias[encoder]).view(shape)
            for encoder, shape in self.shapes.items()
        }

    def learning_rate(self, token_lr: float) -> float:
        """Adam moves every weight by its rate, whatever the gradient's size; so one step moves an entry of V* by
        rate · (1 + sum of the hidden units)."""
        with torch.no_grad():
            units = max(self._hidden(encoder).sum().item() for encoder in self.shapes)
        return token_lr / (1 + units)

    def _hidden(self, encoder: str) -> Tensor:
        weight, bias = self.first[encoder]
        return torch.relu(weight * 1.0 + bias)
