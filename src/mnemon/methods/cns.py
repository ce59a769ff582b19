"""Concept Neuron Selection (Liao et al., ICCV 2025, arXiv 2510.02296).

The authors have published no code. The four steps (base neurons, general neurons, their difference, training on it) are
the paper's; scores, ranking, vote, regulariser and every number are this project's reading of it. Not covered: scores
from the attention's outputs, one general score pooled over all captions, and regional sampling.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Sparse, sum_deltas
from mnemon.errors import MnemonError
from mnemon.methods import importance, parts
from mnemon.methods.base import Learner, Losses, Method, Start, Step, TokenInit
from mnemon.methods.importance import Masks, Scope
from mnemon.models.base import Base
from mnemon.settings import NonNegativeFloat, PositiveFloat, Share

DRAWS = 64
"""Gradients that make a score, each of a single image at one timestep."""


class CnsLearner(Learner):
    """The entries of D_t under M^t, of all target modules in one vector, and the token V*_t."""

    moved: Tensor
    taken: Tensor

    def __init__(self, method: "Cns", start: Start) -> None:
        base, generator = start.base, start.generator
        token = parts.VectorToken(method.init_embeddings(start))
        super().__init__(start, token, method.token_lr)
        self.method, self.base, self.earlier = method, base, start.earlier
        self.target_modules = base.target_modules()
        self.bare = {target: layer.weight.detach() for target, layer in self.target_modules.items()}  # W_0, shared
        self.values = nn.Parameter(torch.zeros(0, device=base.device))
        self._facts: dict[str, Any] = {}
        nothing = {target: torch.zeros_like(weight, dtype=torch.bool) for target, weight in self.bare.items()}
        self._deltas = {target: Sparse(mask, torch.zeros(0, device=base.device)) for target, mask in nothing.items()}
        if method.score == "wanda":
            past = self._past()
            self._train_under(self._select(self._scores_by_text(past), self._general_by_text(), generator), past)
        else:  # gradients have to wait for `on_train_start`
            self._train_under(nothing, nothing)

    def on_train_start(self, losses: Losses, general: Losses | None, generator: torch.Generator) -> None:
        """Where gradients are the score, the masks come from here: W_{t-1} is active in the base now."""
        if self.method.score == "grad":
            gradients = importance.gradient_scores(self.target_modules, losses, DRAWS, generator)
            scores = importance.mean_scores(gradients)
            self._train_under(self._select(scores, self._general_by_gradient(general), generator), self._past())

    def _scores_by_text(self, past: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Step 1 of the paper: S(W_{t-1}, X_t), of the concept's own words with its token at the start."""
        weights = {target: weight.float() + past[target] for target, weight in self.bare.items()}  # W_{t-1}
        with torch.no_grad(), self.base.using_tokens({self.name: self.token()}):
            words = importance.concept_words(self.base, self.method.prompt_name(self.name, self.class_noun))  # X_t
        return importance.text_scores(weights, words)

    def _general_by_text(self) -> Masks | None:
        """Step 2: M_gen of the captions."""
        return None if self.method.mask == "base" else self.method.general_by_text(self.base)

    def _general_by_gradient(self, losses: Losses | None) -> Masks | None:
        """Step 2: M_gen of W_0, which takes the place of W_{t-1} meanwhile; the same samples for every concept."""
        method = self.method
        if method.mask == "base":
            return None
        if losses is None:
            raise MnemonError("With 'score' set to 'grad', cns needs images of diverse things: give `calibration`.")
        generator = torch.Generator(self.base.device).manual_seed(0)
        with _weights(self.target_modules, self.bare):
            scores = importance.gradient_scores(self.target_modules, losses, DRAWS, generator)
            return importance.voted(scores, method.p, method.tau, method.rank_scope)

    def _select(self, scores: Mapping[str, Tensor], general: Masks | None, generator: torch.Generator) -> Masks:
        """Step 3: M^t, or what the ablations take instead."""
        base = importance.top(scores, self.method.q, self.method.rank_scope)  # M_base
        if general is None:
            return base
        chosen = {target: mask & ~general[target] for target, mask in base.items()}  # M^t = M_base AND NOT M_gen
        if not importance.entries(chosen):
            raise MnemonError(f"All base neurons of '{self.name}' are general: set 'q' higher, or 'p' lower.")
        self._facts["general_share"] = 1 - importance.entries(chosen) / importance.entries(base)
        return chosen if self.method.mask == "base-general" else importance.shuffled(chosen, generator)

    def _train_under(self, masks: Masks, past: Masks) -> None:
        """Step 4: train the entries under `masks` from now on; what L_reg depends on is gathered once."""
        self.masks, self.counts = masks, [int(mask.sum()) for mask in masks.values()]
        taken = importance.union(self.earlier, masks)  # U_{t-1} = OR_{i<t} M^i
        self.register_buffer("taken", _under(masks, taken), persistent=False)
        self.register_buffer("moved", _under(masks, past), persistent=False)  # W_{t-1} - W_0
        for target, mask in masks.items():  # with nothing in a graph, which would remember the vector's old length
            self._deltas[target].mask, self._deltas[target].values = mask, self.taken[:0]
        self.values.data = torch.zeros_like(self.taken)  # D_t, W - W_{t-1} under M^t
        self._scatter()

    def before_step(self, generator: torch.Generator) -> None:
        self._scatter()

    def _scatter(self) -> None:
        """Put the trained entries into the target modules' deltas, in the graph."""
        for delta, values in zip(self._deltas.values(), self.values.split(self.counts), strict=True):
            delta.values = values  # W_t = W_{t-1} + M^t (.) D_t

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda L_reg, on the trained entries alone: the others add nothing."""
        method = self.method
        if method.reg == "none":
            return torch.zeros(())
        if method.reg == "c-lora":  # the square makes |W_{t-1} - W_0| needless
            return method.forget_weight * (self.moved * self.values).square().sum()
        total = (self.taken * self.values).square().sum()  # || U_{t-1} (.) M^t (.) (W - W_{t-1}) ||_F^2
        if method.reg == "earlier+base":
            total = (
                total + method.base_weight * (self.moved + self.values).square().sum()
            )  # || M^t (.) (W - W_0) ||_F^2
        return method.forget_weight * total

    def deltas(self) -> Mapping[str, Sparse]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.values], "lr": self.method.learning_rate}, self.token_group()]

    def stored_deltas(self) -> dict[str, Sparse]:
        values = self.values.detach().cpu().split(self.counts)
        pairs = zip(self.masks.items(), values, strict=True)
        return {target: Sparse(mask.cpu(), entries.clone()) for (target, mask), entries in pairs}

    def _past(self) -> dict[str, Tensor]:
        """W_{t-1} - W_0 by target module."""
        past = sum_deltas([concept.deltas for concept in self.earlier])
        return {
            target: past[target].matrix().to(weight.device)
            if target in past
            else torch.zeros_like(weight, dtype=torch.float)
            for target, weight in self.bare.items()
        }

    def facts(self) -> dict[str, Any]:
        """How large the masks are, and how much of them earlier concepts change too: each, and all together."""
        count, size = sum(self.counts), sum(mask.numel() for mask in self.masks.values())
        shares = {one.name: importance.both(self.masks, importance.stored_masks(one)) / count for one in self.earlier}
        overlap = {"shared": float(self.taken.mean()), "shared_with": shares}
        return {**self._facts, "mask_density": count / size, **overlap}


def _under(masks: Masks, matrices: Mapping[str, Tensor]) -> Tensor:
    """The entries of the matrices under the masks, all target modules in one vector, in fp32."""
    return torch.cat([matrices[target][mask] for target, mask in masks.items()]).float()


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
class Cns(Method):
    """Only the weights that matter to the concept and not to text in general are trained: W_t = W_{t-1} + M^t (.) D_t.

    For each adapted W in R^{D1 x D2}, which reads text features as rows of X in R^{N x D2}, each row of length 1:

        S_ij(W, X) = |W_ij| · || X_:,j ||_2                    Wanda's score (arXiv 2306.11695)
        M_base     = 1[S_ij(W_{t-1}, X_t) in the layer's top q]           X_t: the token, the noun and EOS
        M_gen      = 1[S_ij(W_0, X_n) in the layer's top p for at least tau of the captions n]     once for each base
        M^t        = M_base AND NOT M_gen
        U_{t-1}    = OR_{i<t} M^i
        L_reg      = sum || U_{t-1} (.) M^t (.) (W - W_{t-1}) ||_F^2 + mu sum || M^t (.) (W - W_0) ||_F^2   in fp32
        L          = L_diffusion + lambda L_reg

    D_t starts at zero, and only its entries under M^t exist: one vector, scattered into the deltas, so that the
    optimiser has no other state. The captions are of diverse things, in words of one token. V*_t starts as the class
    noun's embedding, and the noun follows it. Stored are M^t, one bit per entry, and the entries under it. There is no
    fusion: the changes of all concepts are added up.

    With `score` "grad" the score is |W_ij · dL_diffusion/dW_ij| (SNIP, arXiv 1810.02340): its mean over samples of the
    concept's images and timesteps for M_base, a vote of samples of diverse images by the bare base for M_gen.
    """

    name: ClassVar[str] = "cns"
    trains: ClassVar[str] = "the entries of the cross-attention keys and values under a mask, and the token"
    stores: ClassVar[str] = "one bit for each entry of the masks, the entries under them, and the token's vector"
    source: ClassVar[str] = "arXiv 2510.02296 (a reading of it; the authors have published no code)"

    q: Share = 0.08
    """The share of a layer's entries that are the concept's base neurons. 0.08 of the keys and values of Stable
    Diffusion 1.5 are 0.144 % of all its weights: a concept changes no more, however little of it is general."""
    p: Share = 0.08
    """The share of a layer's entries that each caption votes for as general neurons."""
    tau: Share = 0.5
    """The share of votes that makes an entry general."""
    forget_weight: NonNegativeFloat = 1e-3
    """lambda, for sums over layers and entries."""
    base_weight: NonNegativeFloat = 1.0
    """mu, the weight of the distance from the bare base's weights, relative to that from the earlier concepts'."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of the entries."""
    token_lr: PositiveFloat = 1e-3
    """Learning rate of the token embedding."""
    token_init: TokenInit = "class_noun"
    """Where the embeddings start: at the class noun's (`class_noun`; random where there is no noun), or at random."""

    # Ablation switches
    score: Literal["wanda", "grad"] = "wanda"
    """Score weights by the text features that they read, or by the gradients of the diffusion loss."""
    rank_scope: Scope = "layer"
    """Rank the entries of a whole layer, or those of each of its rows."""
    mask: Literal["base-general", "base", "random"] = "base-general"
    """Train the base neurons without the general ones, all of them, or as many entries at random places."""
    reg: Literal["earlier+base", "earlier", "c-lora", "none"] = "earlier+base"
    """L_reg as above, its first sum only, C-LoRA's sum || |W_{t-1} - W_0| (.) (W - W_{t-1}) ||_F^2, or none."""

    @property
    def needs_calibration(self) -> bool:  # type: ignore[override]
        return self.score == "grad" and self.mask != "base"

    @property
    def static_text_features(self) -> bool:  # type: ignore[override]
        return self.score == "wanda"

    @cached_property
    def _general(self) -> dict[tuple[object, ...], Masks]:
        return {}

    def general_by_text(self, base: Base) -> Masks:
        """M_gen of the bare base. Concept after concept it is the same, so the last one is kept."""
        like = next(iter(base.target_modules().values())).weight
        key = (base.fingerprint, like.device, like.dtype)
        if key not in self._general:
            self._general.clear()
            self._general[key] = importance.general_by_text(base, self.p, self.tau, self.rank_scope)
        return self._general[key]

    def begin(self, start: Start) -> CnsLearner:
        return CnsLearner(self, start)
