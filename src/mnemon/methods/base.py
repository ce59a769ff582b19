"""What a method of continual personalization has to say: how one concept is learned, and how concepts are composed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, sum_deltas
from mnemon.errors import MnemonError
from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.tokens import concepts_in

Losses = Callable[[torch.Generator], Tensor]
"""The denoising loss (a scalar, differentiable) of a fresh draw of one image, timestep and noise."""
Over = Literal["prompted", "all"]
"""The concepts of which a prompt is drawn: those that it names, or all of them."""


@dataclass(frozen=True)
class TrainedConcept:
    """What is kept of one concept: its deltas by target module, its token's vectors by text encoder, and its noun.

    A token's vectors are (vectors, width), or (layers, vectors, width) with a set for each of `Base.cross_attention_layers()`.
    """

    name: str
    class_noun: str | None
    deltas: Mapping[str, Delta]
    tokens: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Small JSON facts a method wants kept, e.g. {"mask_density": 0.61}."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Other tensors a method needs later, e.g. a Fisher diagonal."""

    @property
    def stored_bytes(self) -> int:
        tensors = [*self.tokens.values(), *self.extra.values()]
        return sum(t.numel() * t.element_size() for t in tensors) + sum(d.stored_bytes for d in self.deltas.values())


@dataclass(frozen=True)
class Step:
    """What a penalty may look at: the noised latents of this step, what they were told, how far the run is, and the
    model with and without the new concept."""

    base: Base
    noisy: Tensor  # (rows, channels, height, width)
    timesteps: Tensor  # (rows,)
    without: Callable[[], AbstractContextManager[object]]
    """`with step.without():` the model is as it was before the concept; its tokens are known all the same."""
    condition: Conditioning  # what the rows were told, in the graph of the tokens
    tasks: Tensor  # (rows,); of concepts that learn in the same steps, the number of the one each row belongs to
    progress: float  # share of the run's steps that are done, 0 in the first and below 1 in the last

    def predict(self, prompts: Sequence[str]) -> Tensor:
        """The denoiser's answer to the noised latents under these prompts, one for each row."""
        return self.base.predict(self.noisy, self.timesteps, self.base.encode_prompts(prompts))


class Learner(nn.Module, ABC):
    """One concept while it is being learned. The training loop owns everything else."""

    name: str

    @abstractmethod
    def deltas(self) -> Mapping[str, Delta]:
        """The trainable deltas by target module. Attached once, before the first step; they act in every forward pass."""

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

    def prepare(self, losses: Losses, general: Losses | None, generator: torch.Generator) -> None:
        """Called once before the first step, with deltas and tokens at work in the base; again when a run goes on.

        `losses` draws from the concept's own images, `general` from the calibration set if `needs_calibration`.
        """

    def on_train_end(self, losses: Losses, generator: torch.Generator) -> None:
        """Called once after the last step, with deltas and tokens still at work in the base."""

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """What is added to the denoising loss: a scalar in fp32. Terms that ask the model need the `step`."""
        return torch.zeros(())

    def after_step(self) -> None:
        """Called after each optimiser step."""

    @abstractmethod
    def finish(self) -> TrainedConcept:
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
    """Whether what is learned of a concept does not depend on the concepts before it."""
    on_bare_base: ClassVar[bool] = False
    """Whether a concept is learned on the bare base, with none of the earlier ones in it. Concepts of a method that is
    `order_free` as well can be learned in the same steps, each image passing its own concept's changes only."""
    at_once: ClassVar[bool] = False
    """Whether all concepts have to be learned together, in one run, on their images mixed."""
    can_remove: ClassVar[bool]
    """Whether what was learned of a concept is told apart from the others, so that it can be taken out again."""
    needs_class_images: ClassVar[bool]
    source: ClassVar[str]
    needs_calibration: bool = False
    """Whether learning looks at images of diverse things that the bare base draws (may depend on the settings)."""
    static_text_features: bool = False
    """Whether it works on the words as each layer reads them, by tokens with vectors for each layer or by `Base.heard`
    (may depend on the settings). It then needs a base that has such (`Base.static_text_features`)."""
    num_replay_images: int = 0
    """Images of each earlier concept that the model draws before a new one is learned, to be trained on as well."""
    use_class_noun: bool = True
    """Say the class noun after the token in prompts."""
    steps: int
    """Training steps a concept, by default."""
    batch_size: int
    """Images a step, by default."""

    @property
    def order_matters(self) -> str | None:
        """Why `compose` gives something else if the same concepts stand in another order; None where it does not."""
        return None if self.can_remove else "its concepts share one change of the weights, kept with the first of them"

    def check_base(self, base: Base) -> None:
        """Worth asking before anything is trained or written.

        Raises:
            MnemonError: the method cannot work on this base.
        """
        if self.static_text_features and not base.static_text_features:
            raise MnemonError(
                f"The method '{self.name}' works on the words as each layer reads them, but in a {base.family} base "
                "the text changes from layer to layer. Choose another method, such as stamina or lora."
            )

    def prompt_name(self, name: str, class_noun: str | None) -> str:
        """How the concept is called in a prompt: "<rex> dog", or "<rex>" without `use_class_noun` or a noun."""
        return f"<{name}> {class_noun}" if self.use_class_noun and class_noun else f"<{name}>"

    @abstractmethod
    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> Learner:
        """A learner for a new concept. While it learns, `compose(earlier)` is already at work in the base, unless the
        method learns `on_bare_base`."""

    def begin_together(
        self,
        names: Sequence[tuple[str, str | None]],
        base: Base,
        earlier: Sequence[TrainedConcept],
        generators: Sequence[torch.Generator],
    ) -> list[Learner]:
        """Learners for several new concepts (name, noun) that learn in the same steps, each with its own generator."""
        pairs = zip(names, generators, strict=True)
        return [self.begin(name, class_noun, base, earlier, generator) for (name, class_noun), generator in pairs]

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        """The change of each target module with all of `learned` in the model; {} for none. The base knows their tokens. Unless
        a method says otherwise: the sum of their changes, W_t = W_0 + Delta_1 + ... + Delta_t.

        A method that combines `per_prompt` uses `prompt`; it is called once per prompt, never once per denoising step.
        Where a method `fuses`, this is the fusion: it may take its time, and its result is kept.
        """
        return dict(sum_deltas([one.deltas for one in learned]))

    def branches(self, base: Base, learned: Sequence[TrainedConcept], prompt: str) -> list[dict[str, Delta]]:
        """For methods that work `per_prompt`: the changes under which the prompt is denoised. Of more than one, the
        mean of the predictions is taken at every step, and an image takes as many times as long."""
        return [self.compose(base, learned, prompt)]

    def tokens(self, learned: Sequence[TrainedConcept]) -> dict[str, Tokens]:
        """The token vectors of every concept of `learned`."""
        return {one.name: one.tokens for one in learned}


def named(learned: Sequence[TrainedConcept], prompt: str | None) -> list[TrainedConcept]:
    """The concepts whose tokens stand in the prompt, in the order of `learned`."""
    said = concepts_in(prompt or "")
    return [one for one in learned if one.name in said]
