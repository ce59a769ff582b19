"""Soft null-space regularisation: this project's own method.

Keys and values read text features and nothing else, so what earlier prompts produce can be protected directly, without
images. Kin: gradient projection memory (arXiv 2103.09762), Adam-NSCL (arXiv 2103.07113) and InfLoRA (arXiv 2404.00228),
which keep classifiers' updates off the inputs of earlier tasks; the preservation term of concept editing (UCE, arXiv
2308.14761), which moves cross-attention weights in closed form; NP-LoRA (arXiv 2511.11051), which projects at fusion.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mnemon.methods import parts, text_grams
from mnemon.methods.base import Losses, Start, Step, TokenInit
from mnemon.methods.low_rank import LoraLearner, LoraMethod
from mnemon.methods.text_grams import Factors
from mnemon.models.base import Base
from mnemon.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Share


class NullSpaceLearner(LoraLearner):
    """A_t, B_t of every target module and the token V*_t; what the earlier concepts' prompts read, and at the end its
    own."""

    def __init__(self, method: "NullSpace", start: Start) -> None:
        super().__init__(method, start)
        self.method, self.base, self.earlier = method, start.base, start.earlier
        self.layers = {target: text_grams.layer_of(start.base, target) for target in self.target_modules}
        self.guarded: Factors = {}
        self.sizes: dict[str, Tensor] = {}
        self.own: Factors = {}

    def on_train_start(self, losses: Losses, general: Losses | None, generator: torch.Generator) -> None:
        """Gather C and the size of what the weights give."""
        ordinary = self.method.general(self.base, generator)
        past = [text_grams.from_extra(one.extra, self.base.device) for one in self.earlier]
        weighted = [{key: self.method.concept_weight**0.5 * factor for key, factor in one.items()} for one in past]
        self.guarded = text_grams.joined([ordinary, *weighted])  # C = C_g + w sum_i C_i, as F F^T
        modules = self.base.target_modules()
        self.sizes = {
            target: (modules[target].weight.detach().float() @ ordinary[layer]).square().sum()  # tr(W C_g W^T)
            for target, layer in self.layers.items()
        }
        if self.method.constraint == "hard":
            self.bases = {layer: _leading(factor, self.method.threshold) for layer, factor in self.guarded.items()}

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda L_null"""
        if self.method.constraint != "soft" or not self.guarded:  # a plan of the memory gathers nothing
            return torch.zeros(())
        shares = [
            _size(delta.up, delta.down, self.guarded[self.layers[target]]) / self.sizes[target]
            for target, delta in self.deltas().items()
        ]
        return self.method.forget_weight * torch.stack(shares).mean()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The hard constraint: B (I - U U^T)."""
        if self.method.constraint == "hard":
            for target, delta in self.deltas().items():
                directions = self.bases[self.layers[target]]
                delta.down.sub_((delta.down @ directions) @ directions.T)

    def on_train_end(self, losses: Losses, generator: torch.Generator) -> None:
        name, is_style = self.method.prompt_name(self.name, self.class_noun), self.class_noun is None
        weigh = {"uniform": text_grams.alike, "change": self._change}[self.method.feature_weights]
        with torch.no_grad(), self.base.using_tokens({**self.base.tokens, self.name: self.tokens()}):
            self.own = text_grams.concept_factors(self.base, name, is_style, generator, weigh)

    def _change(self, layer: str, rows: Tensor) -> Tensor:
        """How much the concept's own change moves what is made of each input (rows, D2), of mean one."""
        own = [(target, delta) for target, delta in self.deltas().items() if self.layers[target] == layer]
        moved = [(rows @ delta.down.T @ delta.up.T).square().sum(1) / self.sizes[target] for target, delta in own]
        total = torch.stack(moved).sum(0)
        return total / total.mean()

    def extra(self) -> dict[str, Tensor]:
        return text_grams.to_extra(self.own)


def _size(up: Tensor, down: Tensor, factor: Tensor) -> Tensor:
    """tr(Delta C Delta^T) = || A B F ||_F^2 for A (D1, r), B (r, D2), F (D2, k), by matrices of side r."""
    read = down @ factor
    return ((read @ read.T) * (up.T @ up)).sum()


def _leading(factor: Tensor, threshold: float) -> Tensor:
    """U (d, k): the directions of F F^T with eigenvalues above `threshold` times the largest."""
    vectors, values, _ = torch.linalg.svd(factor, full_matrices=False)
    return vectors[:, values.square() > threshold * values[0].square()]


@dataclass(frozen=True)
class NullSpace(LoraMethod):
    """Low-rank adaptation whose changes are kept away from what earlier concepts' prompts and general captions read.

    For each adapted W in R^{D1 x D2} and concept t:

        W_t    = W_{t-1} + Delta_t,  Delta_t = A_t B_t      A_t (D1, r) starts at zero, B_t (r, D2) at random
        C_i    = mean of e e^T                              e (D2,): text features of prompts with concept i
        C_g    = mean of e e^T                              of captions of diverse things and of the empty prompt
        C      = C_g + w sum_{i<t} C_i
        L_null = mean over target modules of tr(Delta_t C Delta_t^T) / tr(W C_g W^T)
        L      = L_diffusion + lambda L_null

    tr(Delta C Delta^T) is how much Delta changes the keys or values of those prompts, and tr(W C_g W^T) how large they
    are: L_null has no unit, whatever the base. It is zero exactly if Delta maps all guarded features to zero, the null
    space of C; there a concept may change as much as it likes. Neither images nor prompts of earlier concepts are
    kept: a concept stores C_i as a factor F with F F^T = C_i, of a few columns.
    """

    name: ClassVar[str] = "null-space"
    stores: ClassVar[str] = "the factors, the token's vectors, and a factor of the features of its prompts"
    source: ClassVar[str] = "this project; kin to arXiv 2103.09762, 2103.07113, 2404.00228 and 2308.14761"

    num_vectors: PositiveInt = 3
    """Number of embeddings per placeholder token."""
    token_init: TokenInit = "class_noun"
    """Where the embeddings start: at the class noun's (`class_noun`; random where there is no noun), or at random."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of the factors."""
    forget_weight: NonNegativeFloat = 1.0
    """lambda."""
    concept_weight: NonNegativeFloat = 1.0
    """w, the weight of each earlier concept's prompts against general captions."""

    # Ablation switches
    feature_weights: Literal["uniform", "change"] = "uniform"
    """In C_i every feature counts alike (`uniform`), or by how much Delta_i moves what is made of it (`change`)."""
    constraint: Literal["soft", "hard", "none"] = "soft"
    """L_null as above; B_t projected off the leading directions of C after every step (as GPM does); or neither."""
    threshold: Share = 0.01
    """With `hard`: directions whose eigenvalue is more than this share of the largest."""

    @cached_property
    def _general(self) -> parts.LastOfBase[Factors]:
        return parts.LastOfBase()

    def general(self, base: Base, generator: torch.Generator) -> Factors:
        """F of C_g; where all layers read the encoded text, the same for every concept."""
        if base.static_text_features:
            return self._general.get(base, lambda: text_grams.general_factors(base, generator))
        return text_grams.general_factors(base, generator)

    def begin(self, start: Start) -> NullSpaceLearner:
        return NullSpaceLearner(self, start)
