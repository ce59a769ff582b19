"""The interface of a continual personalization method: how one concept is learned, and how concepts are composed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, SummedDeltas, sum_deltas
from mnemon.errors import MnemonError
from mnemon.methods import parts
from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.tokens import concepts_in
from mnemon.settings import NonNegativeInt, PositiveFloat, PositiveInt, check_settings

Losses = Callable[[torch.Generator], Tensor]
"""The denoising loss (a scalar, differentiable) of one image, timestep and noise, sampled anew in each call."""
Over = Literal["prompted", "all"]
"""The active concepts of a prompt: those that it names, or all of them."""
TokenInit = Literal["class_noun", "random"]
"""Where a token's embeddings start."""


@dataclass(frozen=True)
class TrainedConcept:
    """What is stored of a concept: its deltas by target module, its token embeddings by text encoder, its class noun.

    Token embeddings are (vectors, width), or (layers, vectors, width) where each cross-attention layer has its own.
    """

    name: str
    class_noun: str | None
    deltas: Mapping[str, Delta]
    tokens: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Small JSON metadata of the method, e.g. {"mask_density": 0.61}."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Other tensors that the method needs later, e.g. a Fisher diagonal."""

    @property
    def stored_bytes(self) -> int:
        tensors = [*self.tokens.values(), *self.extra.values()]
        return sum(t.numel() * t.element_size() for t in tensors) + sum(d.stored_bytes for d in self.deltas.values())


@dataclass(frozen=True)
class Start:
    """What a learner starts from: the new concept, the base, the concepts learned before, and the random generator."""

    name: str
    class_noun: str | None
    base: Base
    earlier: Sequence[TrainedConcept]
    generator: torch.Generator


@dataclass(frozen=True)
class Step:
    """A training step as a regularisation loss sees it."""

    base: Base
    noisy: Tensor  # noised latents (rows, channels, height, width)
    timesteps: Tensor  # (rows,)
    without: Callable[[], AbstractContextManager[object]]
    """`with step.without():` the model as it was before the new concept, except that its token stays known."""
    condition: Conditioning  # of the rows, in the graph of the token embeddings
    tasks: Tensor  # (rows,); index of the concept that each row belongs to, among those of the run
    shares: Tensor  # (rows,); a mean over a concept's rows is the sum of `shares * values` over them
    progress: float  # share of the run's steps that are done, 0 in the first and below 1 in the last

    def predict(self, prompts: Sequence[str]) -> Tensor:
        """The denoiser's prediction for the noised latents under these prompts, one for each row."""
        return self.base.predict(self.noisy, self.timesteps, self.base.encode_prompts(prompts))


class Learner(nn.Module, ABC):
    """One concept while it is trained. The training loop owns everything else."""

    protection: tuple[str, Tensor] | None = None
    """Of the last regularization loss what protects earlier concepts: the setting that weighs it, and its value."""

    def __init__(self, start: Start, token: parts.Token, token_lr: float) -> None:
        super().__init__()
        self.name, self.class_noun = start.name, start.class_noun
        self.token, self.token_lr = token, token_lr

    @abstractmethod
    def deltas(self) -> Mapping[str, Delta]:
        """The trainable deltas by target module. Attached once, before the first step; active in every forward pass."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups [{"params": [...], "lr": float}, ...]; together exactly the trainable parameters."""

    @abstractmethod
    def stored_deltas(self) -> Mapping[str, Delta]:
        """The deltas as they are stored: in tensors of their own, on the CPU."""

    def tokens(self) -> Mapping[str, Tensor]:
        """The token embeddings of this step, by text encoder, in the graph of the trainable parameters."""
        return self.token()

    def on_train_start(self, losses: Losses, general: Losses | None, generator: torch.Generator) -> None:
        """Called once before the first step, with deltas and tokens active in the base; again when a run is resumed.

        `losses` samples the concept's own images, `general` the calibration set if `needs_calibration`.
        """

    def before_step(self, generator: torch.Generator) -> None:
        """Called before each forward pass, e.g. to sample this step's masks.

        In evaluation mode (`learner.eval()`, for previews) it prepares what `export` would store, and samples nothing.
        """

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """Added to the denoising loss: a scalar in fp32. Terms that call the model need the `step`.

        Where a step is computed in parts it is called for each, and the mean counts. Means over rows are taken by
        `step.shares`, since a part may have few of a concept's rows, or none.
        """
        return torch.zeros(())

    def protecting(self, setting: str, weight: float, term: Tensor) -> Tensor:
        """`weight * term`, for a term of the regularization loss that protects earlier concepts: if it hardly acts in a
        run, a warning names the `setting` to raise. A weight of zero is meant."""
        loss = weight * term
        if weight:
            self.protection = setting, loss.detach()
        return loss

    def after_step(self, progress: float) -> None:
        """Called after each optimiser step, with the share of the run's steps that are done: 1 after the last."""

    def on_train_end(self, losses: Losses, generator: torch.Generator) -> None:
        """Called once after the last step, with deltas and tokens still active in the base."""

    def token_group(self) -> dict[str, Any]:
        """The optimiser group of the token."""
        return {"params": list(self.token.parameters()), "lr": self.token.learning_rate(self.token_lr)}

    def facts(self) -> dict[str, Any]:
        """`TrainedConcept.facts` of the concept as it is now."""
        return {}

    def extra(self) -> dict[str, Tensor]:
        """`TrainedConcept.extra` of the concept as it is now, on the CPU."""
        return {}

    def export(self) -> TrainedConcept:
        """What is stored of the concept. The learner is not used any more."""
        extra = self.extra()  # before the facts, which in fl2t are of the joint stage that this may begin
        return TrainedConcept(self.name, self.class_noun, self.stored_deltas(), self.token.state(), self.facts(), extra)


@dataclass(frozen=True)
class Method(ABC):
    """A method. Subclasses are frozen dataclasses whose fields are its settings, each documented."""

    name: ClassVar[str]
    source: ClassVar[str]
    """The paper."""
    trains: ClassVar[str]
    """In words: what is trained."""
    stores: ClassVar[str]
    """In words: what is stored of a concept."""
    fuses: ClassVar[bool] = False
    """Whether concepts need a fusion step (with data or an optimisation) before several can be used together."""
    per_prompt: ClassVar[bool] = False
    """Whether `compose` depends on the prompt; it is then called once for each distinct prompt."""
    order_free: ClassVar[bool] = False
    """Whether what is learned of a concept does not depend on the concepts before it."""
    on_bare_base: ClassVar[bool] = False
    """Whether a concept is trained on the bare base, without the earlier concepts."""
    trains_jointly: ClassVar[bool] = False
    """Whether all concepts have to be trained together, in one run, on their images mixed."""
    follows_progress: ClassVar[bool] = False
    """Whether what a step does depends on how many steps follow it: such a run cannot go on for longer."""
    can_remove: ClassVar[bool] = True
    """Whether a concept's change is stored apart from the others', so that it can be removed."""
    needs_calibration = False
    """Whether training reads images of diverse things that the bare base generates (may depend on the settings)."""
    static_text_features = False
    """Whether it works on the text features that the cross-attention layers read (may depend on the settings). It then
    needs a base whose text does not change from layer to layer (`Base.static_text_features`)."""
    num_replay_images = 0
    """Images of each earlier concept that the model generates before a new one is trained, as further training data."""

    steps: NonNegativeInt = 200
    """Training steps per concept."""
    batch_size: PositiveInt = 8
    """Images per step."""
    num_vectors: PositiveInt = 1
    """Number of embeddings per placeholder token."""
    token_init: TokenInit = "random"
    """Where they start: at the class noun's embedding (`class_noun`; random where there is no noun), or at random."""
    token_lr: PositiveFloat = 5e-3
    """Learning rate of the token embeddings."""
    use_class_noun: bool = True
    """Put the class noun after the token in prompts."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def concurrent(self) -> bool:
        """Whether several concepts may be trained in the same steps."""
        return self.trains_jointly or (self.on_bare_base and self.order_free)

    @property
    def independent(self) -> bool:
        """Whether other concepts change no more of a concept's training than its random numbers."""
        return self.on_bare_base and self.order_free

    @property
    def order_matters(self) -> str | None:
        """Why `compose` differs if the same concepts stand in another order; None where it does not."""
        return None if self.can_remove else "its concepts share one change of the weights, kept with the first of them"

    @property
    def fixed_strength(self) -> str | None:
        """Why the change of one concept cannot be scaled for a prompt; None where it can."""
        if not self.can_remove:
            return "its concepts share one change of the weights"
        return "its concepts are fused into one change of the weights" if self.fuses else None

    def init_embeddings(self, start: Start) -> dict[str, Tensor]:
        """Where the token's embeddings start, (vectors, width) by text encoder."""
        word = start.class_noun if self.token_init == "class_noun" else None
        return parts.init_embeddings(start.base, word, self.num_vectors, start.generator)

    def check_base(self, base: Base) -> None:
        """Call before anything is trained or written.

        Raises:
            MnemonError: the method cannot work on this base.
        """
        if self.static_text_features and not base.static_text_features:
            raise MnemonError(
                f"The method '{self.name}' works on the words as each layer reads them, but in a {base.family} base "
                "the text changes from layer to layer. Choose another method, such as stamina or lora."
            )

    def prompt_name(self, name: str, class_noun: str | None) -> str:
        """The concept in a prompt: "<rex> dog", or "<rex>" without `use_class_noun` or a noun."""
        return f"<{name}> {class_noun}" if self.use_class_noun and class_noun else f"<{name}>"

    @abstractmethod
    def begin(self, start: Start) -> Learner:
        """A learner for a new concept. While it trains, `compose(start.earlier)` is active in the base, unless the
        method trains `on_bare_base`."""

    def begin_together(self, starts: Sequence[Start]) -> list[Learner]:
        """Learners for several new concepts that train in the same steps."""
        return [self.begin(start) for start in starts]

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        """The delta of each target module with all of `learned` in the model; {} for none. The base knows their tokens.
        By default the sum of their deltas, W_t = W_0 + Delta_1 + ... + Delta_t.

        A method that composes `per_prompt` uses `prompt`; it is called once per prompt, never once per denoising step.
        Where a method `fuses`, this is the fusion: it may take its time, and its result is stored.
        """
        return dict(sum_deltas([concept.deltas for concept in learned]))

    @property
    def is_sum(self) -> bool:
        """Whether `compose` is the sum of the concepts' deltas, layer by layer."""
        return type(self).compose is Method.compose

    def merged_changes(self, base: Base, learned: Sequence[TrainedConcept]) -> Mapping[str, Delta]:
        """As `compose`, for one who looks at every layer once, as `merge` does: a sum is formed layer by layer then."""
        if self.is_sum:
            return SummedDeltas([concept.deltas for concept in learned])
        return self.compose(base, learned)

    def branches(self, base: Base, learned: Sequence[TrainedConcept], prompt: str) -> list[dict[str, Delta]]:
        """For methods that compose `per_prompt`: the adapter sets under which the prompt is denoised. With several, the
        mean of their predictions is taken at every step, and an image takes as many times as long."""
        return [self.compose(base, learned, prompt)]

    def tokens(self, learned: Sequence[TrainedConcept]) -> dict[str, Tokens]:
        """The token embeddings of every concept of `learned`."""
        return {concept.name: concept.tokens for concept in learned}


def named(learned: Sequence[TrainedConcept], prompt: str | None) -> list[TrainedConcept]:
    """The concepts whose tokens stand in the prompt, in the order of `learned`."""
    names = concepts_in(prompt or "")
    return [concept for concept in learned if concept.name in names]
