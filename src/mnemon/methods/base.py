"""What a method of continual personalization has to say: how one concept is learned, and how concepts are composed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.adapters.delta import Delta
from mnemon.models.base import Base


@dataclass(frozen=True)
class Learned:
    """What is kept of one concept: its deltas by site, its token's vectors by text encoder, and its noun."""

    name: str
    noun: str | None
    deltas: Mapping[str, Delta]
    tokens: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Small JSON facts a method wants kept, e.g. {"mask_density": 0.61}."""

    @property
    def stored_bytes(self) -> int:
        tokens = sum(t.numel() * t.element_size() for t in self.tokens.values())
        return tokens + sum(delta.stored_bytes for delta in self.deltas.values())


class Learner(nn.Module, ABC):
    """One concept while it is being learned. The training loop owns everything else."""

    @abstractmethod
    def deltas(self) -> Mapping[str, Delta]:
        """The trainable deltas by site. Attached once, before the first step; they act in every forward pass."""

    @abstractmethod
    def tokens(self) -> Mapping[str, Tensor]:
        """The concept's token vectors for this step, by text encoder, in the graph of the trainable parameters."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups [{"params": [...], "lr": float}, ...]; together exactly the trainable parameters."""

    def before_step(self, generator: torch.Generator) -> None:
        """Called before each forward pass, e.g. to draw this step's masks.

        In evaluation mode (`learner.eval()`, for previews) it prepares what `finish` would keep, and draws nothing.
        """

    def penalty(self) -> Tensor:
        """What is added to the denoising loss: a scalar in fp32."""
        return torch.zeros(())

    def after_step(self) -> None:
        """Called after each optimiser step."""

    @abstractmethod
    def finish(self) -> Learned:
        """What is kept of the concept. The learner is not used any more."""


class Method(ABC):
    """A method. Subclasses are frozen dataclasses whose fields are its settings, each documented."""

    name: ClassVar[str]
    trains: ClassVar[str]
    """In words: what is trained."""
    stores: ClassVar[str]
    fuses: ClassVar[bool]
    """Whether concepts need a fusion step (with data or an optimisation) before several can be drawn together."""
    per_prompt: ClassVar[bool] = False
    """Whether `compose` depends on the prompt; it is then called once for each distinct prompt."""
    order_free: ClassVar[bool]
    can_remove: ClassVar[bool]
    needs_class_images: ClassVar[bool]
    source: ClassVar[str]
    steps: int
    """Training steps a concept, by default."""
    batch: int
    """Pictures a step, by default."""

    @abstractmethod
    def prompt_name(self, name: str, noun: str | None) -> str:
        """How the concept is called in a prompt: "<rex> dog" or "<rex>"."""

    @abstractmethod
    def begin(
        self, name: str, noun: str | None, base: Base, earlier: Sequence[Learned], generator: torch.Generator
    ) -> Learner:
        """A learner for a new concept. While it learns, `compose(earlier)` is already at work in the base."""

    @abstractmethod
    def compose(self, learned: Sequence[Learned], prompt: str | None = None) -> dict[str, Delta]:
        """The change of each site with all of `learned` in the model; {} for none. A method that combines per prompt
        uses `prompt`; it is called once per prompt, never once per denoising step."""
