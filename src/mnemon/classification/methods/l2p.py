"""L2P (Wang et al., arXiv 2112.08654), and L2P++ of CODA-Prompt (arXiv 2211.13218): prompts chosen from one pool."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.classification.backbone import Backbone, Prefix
from mnemon.classification.methods.base import Batch, Features, Start, TrainedTask
from mnemon.classification.methods.prompts import PromptLearner, PromptMethod, similarities, uniform
from mnemon.errors import MnemonError
from mnemon.settings import NonNegativeFloat, PositiveInt


def chosen_prompts(queries: Tensor, prompts: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The prompts (images, count, length, width) whose keys are nearest to each query, and the cosine distances
    (images, count). Each image chooses for itself, from prompts (pool, length, width) and keys (pool, width)."""
    near, places = similarities(queries, keys).topk(count, dim=1)
    return prompts[places], 1 - near


class PoolLearner(PromptLearner):
    """The pool of every block, as the task before left it."""

    def __init__(self, method: "PoolMethod", start: Start) -> None:
        backbone = start.backbone
        size, width = method.pool_size, backbone.width
        shapes = {"prompts": (size, method.length, width), "keys": (size, width)}
        fresh = {
            f"{kind}.{block}": uniform(shape, start.generator, backbone.device)
            for block in method.blocks
            for kind, shape in shapes.items()
        }
        before = start.earlier[-1].extra if start.earlier else fresh
        super().__init__(method.learning_rate, {name: before[name].to(backbone.device) for name in fresh})
        self.method = method

    def features(self, backbone: Backbone, batch: Batch) -> Tensor:
        assert batch.queries is not None
        return self.method.read(backbone, batch.images, batch.queries, self.trained())

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """lambda times the sum over blocks and chosen keys of 1 - cos(q(x), k_s), mean over images."""
        assert batch.queries is not None
        pool, count = self.trained(), self.method.top_k
        distances = [
            chosen_prompts(batch.queries, pool[f"prompts.{block}"], pool[f"keys.{block}"], count)[1]
            for block in self.method.blocks
        ]
        return self.method.key_weight * torch.cat(distances, 1).sum(1).mean()


@dataclass(frozen=True)
class PoolMethod(PromptMethod):
    """A pool of prompts that all tasks share; an image uses those whose keys are nearest to its query."""

    trains: ClassVar[str] = "a pool of prompts and their keys"
    stores: ClassVar[str] = "the whole pool"

    pool_size: PositiveInt = 10
    """Prompts in the pool."""
    length: PositiveInt = 5
    """Tokens of a prompt."""
    top_k: PositiveInt = 5
    """Prompts that an image uses."""
    key_weight: NonNegativeFloat = 0.1
    """lambda, the weight of the distances between queries and chosen keys."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k > self.pool_size:
            raise MnemonError(f"The setting 'top_k' is {self.top_k}; the pool has {self.pool_size} prompts.")

    @property
    @abstractmethod
    def blocks(self) -> Sequence[int]:
        """Blocks with a pool of their own."""

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @abstractmethod
    def read(self, backbone: Backbone, images: Tensor, queries: Tensor, pool: Mapping[str, Tensor]) -> Tensor:
        """What the head reads, (images, width), with `prompts.<block>` and `keys.<block>` of `pool`."""

    def begin(self, start: Start) -> PoolLearner:
        return PoolLearner(self, start)

    def features(self, backbone: Backbone, learned: Sequence[TrainedTask]) -> Features:
        pool = {name: tensor.to(backbone.device) for name, tensor in learned[-1].extra.items()}

        def read(images: Tensor, queries: Tensor | None) -> Tensor:
            assert queries is not None
            return self.read(backbone, images, queries, pool)

        return read


@dataclass(frozen=True)
class L2p(PoolMethod):
    """Prompts as further tokens, from one pool:

        input   [P_s1; ...; P_sN; x_e]          the N prompts whose keys are nearest to q(x), before all tokens
        head    mean of the outputs at the N · L_p prompt positions
        L       CE + lambda sum_s (1 - cos(q(x), k_s))

    q(x): the feature of x in the frozen backbone without prompts. Every image chooses for itself, in training and test;
    the vote of a batch, which makes a prediction depend on other images, is not offered.
    """

    name: ClassVar[str] = "l2p"
    source: ClassVar[str] = "arXiv 2112.08654"

    @property
    def blocks(self) -> Sequence[int]:
        return (0,)

    def read(self, backbone: Backbone, images: Tensor, queries: Tensor, pool: Mapping[str, Tensor]) -> Tensor:
        prompts, _ = chosen_prompts(queries, pool["prompts.0"], pool["keys.0"], self.top_k)
        return backbone.features(images, tokens=prompts.flatten(1, 2))


@dataclass(frozen=True)
class L2pPlus(PoolMethod):
    """L2P with prefixes: half of each chosen prompt goes before the keys of a block's attention, half before its
    values, and the head reads the class token. With `deep`, blocks 0 to 4 have pools of their own.
    """

    name: ClassVar[str] = "l2p++"
    source: ClassVar[str] = "L2P++ of arXiv 2211.13218"

    pool_size: PositiveInt = 30
    """Prompts in the pool."""
    length: PositiveInt = 20
    """Tokens of a prompt: half keys, half values."""
    key_weight: NonNegativeFloat = 1.0
    """lambda, the weight of the distances between queries and chosen keys."""
    deep: bool = False
    """Prefixes in the first five blocks, instead of the first only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_even(self.length)

    @property
    def blocks(self) -> Sequence[int]:
        return range(5 if self.deep else 1)

    def read(self, backbone: Backbone, images: Tensor, queries: Tensor, pool: Mapping[str, Tensor]) -> Tensor:
        prefixes: dict[int, Prefix] = {}
        for block in self.blocks:
            prompts, _ = chosen_prompts(queries, pool[f"prompts.{block}"], pool[f"keys.{block}"], self.top_k)
            keys, values = prompts.chunk(2, dim=2)  # (images, k, length / 2, width)
            prefixes[block] = keys.flatten(1, 2), values.flatten(1, 2)
        return backbone.features(images, prefixes)


def check_even(length: int) -> None:
    """Raises:
    MnemonError: a prompt cannot be halved.
    """
    if length % 2:
        raise MnemonError(f"The setting 'length' is {length}; expected an even number, half keys and half values.")
