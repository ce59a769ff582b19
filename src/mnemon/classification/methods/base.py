"""The interface of a continual classification method: how one task is learned, and what is read after several."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, attach, merge, sum_deltas
from mnemon.classification.backbone import Backbone
from mnemon.errors import MnemonError
from mnemon.settings import PositiveFloat, PositiveInt, check_settings

Features = Callable[[Tensor, Tensor | None], Tensor]
"""From images (images, 3, side, side) and their queries (images, width), for methods that use these, to what the head
reads, (images, width)."""
WEIGHT = "weight."  # before the name of a parameter, among the extra tensors of a task


@dataclass(frozen=True)
class TrainedTask:
    """What is stored of a task.

    Attributes:
        head: `weight` (rows, width) and `bias` (rows,) of the last classes known after the task: of its own ones, or of
            all where it trained all.
        deltas: changes of the backbone's linear layers, by their names.
        extra: other tensors: prompts, keys, whole parameters (`weight.<name>`), importances.
        facts: small JSON metadata.
    """

    name: str
    classes: tuple[str, ...]
    head: Mapping[str, Tensor]
    deltas: Mapping[str, Delta] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stored_bytes(self) -> int:
        tensors = [*self.head.values(), *self.extra.values()]
        return sum(t.numel() * t.element_size() for t in tensors) + sum(d.stored_bytes for d in self.deltas.values())


@dataclass(frozen=True)
class Start:
    """What a learner starts from. The earlier tasks' changes are in the backbone, unless the method trains on the bare
    one."""

    name: str
    classes: tuple[str, ...]
    backbone: Backbone
    earlier: Sequence[TrainedTask]
    generator: torch.Generator


@dataclass(frozen=True)
class Batch:
    """Images (images, 3, side, side), their classes' numbers among the task's (images,), and the queries (images,
    width), for methods that use them: features of the unaugmented images in the frozen backbone."""

    images: Tensor
    labels: Tensor
    queries: Tensor | None


class Learner(nn.Module, ABC):
    """One task while it is trained. The loop owns the head, the cross entropy and the optimiser."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups [{"params": [...], "lr": float}, ...]; together exactly the trainable parameters."""

    def attached(self, backbone: Backbone) -> AbstractContextManager[object]:
        """The backbone with what is trained in it, for the time of the training."""
        return nullcontext()

    def on_train_start(self, batches: Callable[[], Iterator[Batch]]) -> None:
        """Called once before the first step, and again when a run is resumed; with the learner attached. `batches` goes
        through the task's images once, unaugmented."""

    def before_step(self, generator: torch.Generator, progress: float) -> None:
        """Called before each forward pass, with the share of the run's steps that are done; in evaluation mode, with
        `progress` 1, it prepares what is stored."""

    def features(self, backbone: Backbone, batch: Batch) -> Tensor:
        """What the head reads, (images, width)."""
        return backbone.features(batch.images)

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """Added to the cross entropy: a scalar. `logits` (images, classes) are of all classes so far."""
        return torch.zeros((), device=features.device)

    def on_train_end(self, batches: Callable[[], Iterator[Batch]], logits: Callable[[Batch], Tensor]) -> None:
        """Called once after the last step, with the learner attached. `logits` are of the task's own classes."""

    def head(self) -> dict[str, Tensor] | None:
        """The head's rows for the task's classes where these are not trained but worked out, else None."""
        return None

    def deltas(self) -> dict[str, Delta]:
        """What is stored as `TrainedTask.deltas`: in tensors of their own, on the CPU."""
        return {}

    def extra(self) -> dict[str, Tensor]:
        """What is stored as `TrainedTask.extra`, on the CPU."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What is stored as `TrainedTask.facts`."""
        return {}


@dataclass(frozen=True)
class ClassifierMethod(ABC):
    """A method. Subclasses are frozen dataclasses whose fields are its settings, each documented."""

    name: ClassVar[str]
    source: ClassVar[str]
    """The paper."""
    trains: ClassVar[str]
    """In words: what is trained beside the head."""
    stores: ClassVar[str]
    """In words: what is stored of a task beside its rows of the head."""
    masks_earlier: ClassVar[bool] = True
    """Whether the logits of earlier classes are left out of the cross entropy, so that their rows stay as they are."""
    merges: ClassVar[bool] = True
    """Whether all that was learned is in the backbone's weights and a linear head, so that it can be exported."""
    uses_queries: ClassVar[bool] = False
    """Whether it reads features of the frozen backbone beside those that it trains."""
    trains_head: ClassVar[bool] = True
    """Whether there are steps of training at all."""
    trains_jointly: ClassVar[bool] = False
    """Whether all tasks have to be trained together."""
    on_bare_backbone: ClassVar[bool] = False
    """Whether a task is trained without the earlier tasks' changes in the backbone."""

    epochs: PositiveInt = 50
    """Passes through a task's images."""
    batch_size: PositiveInt = 128
    """Images per step. What is left at the end of an epoch is left out, unless it is all there is."""
    learning_rate: PositiveFloat = 1e-3
    """Of Adam, in the first epoch; it falls along a cosine to 0.016 of that in the last."""
    normalization: Literal["backbone", "none"] = "backbone"
    """Bring images to the mean and deviation that the backbone was trained with, or leave them in 0..1, as CODA-Prompt,
    L2P and DualPrompt do."""
    augment: Literal["crop", "none"] = "crop"
    """Train on random parts of the images, half of them mirrored, or on the images as they are tested."""

    def __post_init__(self) -> None:
        check_settings(self)

    def check_backbone(self, backbone: Backbone) -> None:
        """Call before anything is trained or written.

        Raises:
            MnemonError: the method cannot work on this backbone.
        """
        if self.depth > backbone.depth:
            raise MnemonError(
                f"The method '{self.name}' works in {self.depth} blocks, and the backbone '{backbone.name}' has "
                f"{backbone.depth}: give it fewer blocks, or choose a deeper backbone."
            )

    @property
    def depth(self) -> int:
        """Blocks that the method needs."""
        return 1

    @abstractmethod
    def begin(self, start: Start) -> Learner:
        """A learner for a new task."""

    def compose(self, learned: Sequence[TrainedTask]) -> dict[str, Delta]:
        """The change of each linear layer of the backbone with all of `learned`: the sum of their changes."""
        return dict(sum_deltas([task.deltas for task in learned]))

    @contextmanager
    def merged(self, backbone: Backbone, learned: Sequence[TrainedTask]) -> Iterator[None]:
        """The backbone with all that was `learned` in its weights; restored bit for bit."""
        extra = learned[-1].extra if learned else {}
        whole = {name.removeprefix(WEIGHT): tensor for name, tensor in extra.items() if name.startswith(WEIGHT)}
        parameters = {
            name: nn.Parameter(tensor.to(backbone.device), requires_grad=False) for name, tensor in whole.items()
        }
        with backbone.replaced(parameters), merge(backbone.layers(), self.compose(learned)):
            yield

    @contextmanager
    def attached(self, backbone: Backbone, learned: Sequence[TrainedTask]) -> Iterator[None]:
        """As `merged`, but the changes of layers stay beside the weights."""
        with attach(backbone.layers(), self.compose(learned)):
            yield

    def features(self, backbone: Backbone, learned: Sequence[TrainedTask]) -> Features:
        """What the head reads after `learned`, of a backbone in which they are merged."""
        return lambda images, _: backbone.features(images)
