"""Steps 1 to 3 of Concept Neuron Selection: which weights are a concept's own. See `cns`."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import sum_deltas
from mnemon.errors import MnemonError
from mnemon.methods import importance, neuron_masks, parts
from mnemon.methods.base import Learner, Losses, Method, Start, TokenInit
from mnemon.methods.importance import Scope
from mnemon.methods.neuron_masks import Masks
from mnemon.models.base import Base
from mnemon.settings import Fraction, PositiveFloat, PositiveInt, Share

SPARSE, SAME = 5e-4, 0.95
"""A selection warns below this share of the weights, and above this IoU with another concept's mask."""
log = logging.getLogger("mnemon")


class SelectingLearner(Learner, ABC):
    """The token V*_t, which learns alone at first; then M^t is selected, once, and given to `train_under`."""

    def __init__(self, method: "SelectingMethod", start: Start) -> None:
        base, noun = start.base, start.class_noun
        token = parts.VectorToken(method.init_embeddings(start))
        super().__init__(start, token, method.token_lr)
        self.selection, self.base, self.earlier = method, base, start.earlier
        embeddings = parts.word_embeddings(base, noun, method.num_vectors) if noun else token()
        self.noun = {encoder: vectors.detach().clone() for encoder, vectors in embeddings.items()}
        self.says_noun = self.has_selected = False
        self.target_modules = base.target_modules()
        self.bare = {target: layer.weight.detach() for target, layer in self.target_modules.items()}  # W_0, shared

    def tokens(self) -> Mapping[str, Tensor]:
        return self.noun if self.says_noun else self.token()

    def on_train_start(self, losses: Losses, general: Losses | None, generator: torch.Generator) -> None:
        self.losses, self.general, self.generator = losses, general, generator
        if not self.selection.token_share:
            self.select()

    def after_step(self, progress: float) -> None:
        """The token has learned: from the next step on entries are trained. W_{t-1} is active in the base now."""
        if progress >= self.selection.token_share and not self.has_selected:
            self.select()

    def select(self) -> None:
        """Steps 1 to 3: M^t, or what the ablations take instead."""
        method, by_text = self.selection, self.selection.score == "wanda"
        score, state = self._scores_by_text if by_text else self._scores_by_gradient, self.generator.get_state()
        scores = score()
        if method.token_share:  # the token differs from the noun by now
            self.generator.set_state(state)  # the same images, timesteps and noise
            with self._saying_the_noun():
                scores = importance.difference(scores, score())
        chosen = importance.top(scores, method.q, method.rank_scope)  # M_base
        if method.mask != "base":
            by_captions = by_text or method.general == "captions"
            general = method.general_by_text(self.base) if by_captions else self._general_by_gradient()  # M_gen
            chosen = {target: mask & ~general[target] for target, mask in chosen.items()}  # M_base AND NOT M_gen
        if not neuron_masks.entries(chosen):
            raise MnemonError(f"All base neurons of '{self.name}' are general: set 'q' higher, or 'p' lower.")
        self.train_under(neuron_masks.shuffled(chosen, self.generator) if method.mask == "random" else chosen)
        self._warn(chosen)

    def _warn(self, chosen: Masks) -> None:
        """Say so if the selection has found next to nothing, or another concept's neurons."""
        density = neuron_masks.entries(chosen) / sum(mask.numel() for mask in chosen.values())
        if density < SPARSE:
            log.warning("Only %.2g of the weights are trained for '%s': raise 'q', or lower 'p'.", density, self.name)
        for one in self.earlier:
            if neuron_masks.iou(chosen, neuron_masks.stored_masks(one)) > SAME:
                log.warning(
                    "The neurons of '%s' are those of '%s': raise 'token_share' or 'token_lr', so that tokens differ.",
                    self.name,
                    one.name,
                )

    @contextmanager
    def _saying_the_noun(self) -> Iterator[None]:
        """Within the block the token has the noun's embeddings."""
        self.says_noun = True
        try:
            yield
        finally:
            self.says_noun = False

    def _scores_by_text(self) -> dict[str, Tensor]:
        """Step 1: S(W_{t-1}, X_t), of the concept's own words."""
        past = self._past()
        weights = {target: weight.float() + past[target] for target, weight in self.bare.items()}  # W_{t-1}
        with torch.no_grad(), self.base.using_tokens({self.name: self.tokens()}):
            words = importance.concept_words(self.base, self.selection.prompt_name(self.name, self.class_noun))  # X_t
        return importance.text_scores(weights, words)

    def _scores_by_gradient(self) -> dict[str, Tensor]:
        """Step 1: of the concept's images; W_{t-1} is active in the base now."""
        draws = self.selection.draws
        scores = importance.gradient_scores(self.target_modules, self.losses, draws, self.generator)
        return importance.mean_scores(scores)

    def _general_by_gradient(self) -> Masks:
        """Step 2: M_gen of W_0, which takes the place of W_{t-1} meanwhile; the same samples for every concept."""
        method = self.selection
        if self.general is None:
            raise MnemonError("With 'score' set to 'grad', cns needs images of diverse things: give `calibration`.")
        generator = torch.Generator(self.base.device).manual_seed(0)
        with _weights(self.target_modules, self.bare):
            scores = importance.gradient_scores(self.target_modules, self.general, method.draws, generator)
            return importance.voted(scores, method.p, method.tau, method.rank_scope)

    def _past(self) -> dict[str, Tensor]:
        """W_{t-1} - W_0 by target module."""
        past = sum_deltas([concept.deltas for concept in self.earlier])
        return {
            target: past[target].matrix().to(weight.device)
            if target in past
            else torch.zeros_like(weight, dtype=torch.float)
            for target, weight in self.bare.items()
        }

    @abstractmethod
    def train_under(self, masks: Masks) -> None:
        """Step 4: train the entries under `masks` from now on."""


@contextmanager
def _weights(target_modules: Mapping[str, nn.Linear], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the target modules have these weights."""
    before = {target: layer.weight.data for target, layer in target_modules.items()}
    try:
        for target, layer in target_modules.items():
            layer.weight.data = weights[target]
        yield
    finally:
        for target, layer in target_modules.items():
            layer.weight.data = before[target]


@dataclass(frozen=True)
class SelectingMethod(Method, ABC):
    """A method whose learners are `SelectingLearner`s."""

    follows_progress: ClassVar[bool] = True

    q: Share = 0.08
    """The share of a layer's entries that are the concept's base neurons. 0.08 of the keys and values of Stable
    Diffusion 1.5 are 0.144 % of all its weights: a concept changes no more, however little of it is general."""
    p: Share = 0.08
    """The share of a layer's entries that each caption votes for as general neurons."""
    tau: Share = 0.5
    """The share of votes that makes an entry general."""
    token_share: Fraction = 0.25
    """Share of the steps in which the token learns alone, before weights are scored."""
    draws: PositiveInt = 64
    """Samples of image, timestep and noise of which a gradient score is the mean."""
    num_vectors: PositiveInt = 3
    """Number of embeddings per placeholder token."""
    token_lr: PositiveFloat = 5e-3
    """Learning rate of the token embeddings."""
    token_init: TokenInit = "class_noun"
    """Where the embeddings start: at the class noun's (`class_noun`; random where there is no noun), or at random."""

    # Ablation switches
    score: Literal["wanda", "grad"] = "grad"
    """Score weights by the text features that they read, or by the gradients of the diffusion loss."""
    general: Literal["captions", "images"] = "images"
    """With `grad`, what votes on general neurons: text features of captions, or images of the bare base."""
    rank_scope: Scope = "layer"
    """Rank the entries of a whole layer, or those of each of its rows."""
    mask: Literal["base-general", "base", "random"] = "base-general"
    """Train the base neurons without the general ones, all of them, or as many entries at random places."""

    @property
    def needs_calibration(self) -> bool:  # type: ignore[override]
        return self.score == "grad" and self.mask != "base" and self.general == "images"

    @property
    def static_text_features(self) -> bool:  # type: ignore[override]
        return self.score == "wanda" or (self.mask != "base" and self.general == "captions")

    @cached_property
    def _general(self) -> parts.LastOfBase[Masks]:
        return parts.LastOfBase()

    def general_by_text(self, base: Base) -> Masks:
        """M_gen of the bare base."""
        return self._general.get(base, lambda: importance.general_by_text(base, self.p, self.tau, self.rank_scope))
