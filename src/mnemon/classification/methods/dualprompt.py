"""DualPrompt (Wang et al., arXiv 2204.04799): one prompt for all tasks, and one for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.classification.backbone import Backbone, Prefix
from mnemon.classification.methods.base import Batch, Features, Start, TrainedTask
from mnemon.classification.methods.prompts import PromptLearner, PromptMethod, similarities, stacked, uniform
from mnemon.settings import NonNegativeFloat, NonNegativeInt, PositiveInt


class DualPromptLearner(PromptLearner):
    """G, E_t and k_t: G where the task before left it, E_t a copy of E_{t-1}."""

    def __init__(self, method: "DualPrompt", start: Start) -> None:
        device, width = start.backbone.device, start.backbone.width
        fresh: dict[str, tuple[int, ...]] = {}
        fresh |= {f"shared.{block}": (2, method.shared_length, width) for block in method.shared}
        fresh |= {f"own.{block}": (1, 2, method.own_length, width) for block in method.own}
        tensors = {name: uniform(shape, start.generator, device) for name, shape in fresh.items()}
        if start.earlier:
            tensors = {name: start.earlier[-1].extra[name].to(device) for name in tensors}
        tensors["key"] = uniform((1, width), start.generator, device)
        super().__init__(method.learning_rate, tensors)
        self.method = method

    def features(self, backbone: Backbone, batch: Batch) -> Tensor:
        task = torch.zeros(len(batch.images), dtype=torch.long, device=batch.images.device)
        return backbone.features(batch.images, self.method.prefixes(self.trained(), task))

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """lambda (1 - cos(q, k_t)), mean over images."""
        assert batch.queries is not None
        return self.method.key_weight * (1 - similarities(batch.queries, self.trained()["key"])).mean()


@dataclass(frozen=True)
class DualPrompt(PromptMethod):
    """Prefixes that all tasks share in the first blocks, and prefixes of each task's own in the next:

        G in R^{2 x L_g x D}        blocks 0, 1: keys and values that every image gets; trained on
        E_t in R^{2 x L_e x D}      blocks 2, 3, 4: those of task t, with the key k_t; start as E_{t-1}
        L = CE + lambda (1 - cos(q(x), k_t))
        test: E of argmax_t cos(q(x), k_t)

    Lengths count keys, and as many values, as in the official code; the key is one for all blocks. There are as many
    E as tasks, however many come.
    """

    name: ClassVar[str] = "dualprompt"
    source: ClassVar[str] = "arXiv 2204.04799"
    trains: ClassVar[str] = "prefixes for all tasks, and prefixes and a key for the task"
    stores: ClassVar[str] = "these"

    shared_length: PositiveInt = 5
    """L_g, keys (and values) of G."""
    own_length: PositiveInt = 20
    """L_e, keys (and values) of E_t."""
    shared_blocks: NonNegativeInt = 2
    """Blocks with G, from the first on."""
    own_blocks: PositiveInt = 3
    """Blocks with E_t, after those."""
    key_weight: NonNegativeFloat = 1.0
    """lambda, the weight of the distance between queries and the task's key."""

    @property
    def shared(self) -> range:
        return range(self.shared_blocks)

    @property
    def own(self) -> range:
        return range(self.shared_blocks, self.depth)

    @property
    def depth(self) -> int:
        return self.shared_blocks + self.own_blocks

    def prefixes(self, tensors: dict[str, Tensor], tasks: Tensor) -> dict[int, Prefix]:
        """By block, for images with E of the tasks (images,), counted along `own.<block>` (tasks, 2, L_e, width)."""
        given = {block: tensors[f"shared.{block}"].expand(len(tasks), -1, -1, -1) for block in self.shared}
        given |= {block: tensors[f"own.{block}"][tasks] for block in self.own}
        return {block: (both[:, 0], both[:, 1]) for block, both in given.items()}

    def begin(self, start: Start) -> DualPromptLearner:
        return DualPromptLearner(self, start)

    def features(self, backbone: Backbone, learned: Sequence[TrainedTask]) -> Features:
        shared = {f"shared.{block}": learned[-1].extra[f"shared.{block}"].to(backbone.device) for block in self.shared}
        own = {name: stacked(learned, name, backbone.device) for name in ("key", *(f"own.{b}" for b in self.own))}

        def read(images: Tensor, queries: Tensor | None) -> Tensor:
            assert queries is not None
            tasks = similarities(queries, own["key"]).argmax(1)
            return backbone.features(images, self.prefixes(shared | own, tasks))

        return read
