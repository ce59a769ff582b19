"""Concept Neuron Selection (Liao et al., ICCV 2025, arXiv 2510.02296).

The authors have published no code. The four steps (base neurons, general neurons, their difference, training on it) are
the paper's; scores, ranking, vote, regulariser and every number are this project's reading of it. Not covered: scores
from the attention's outputs, one general score pooled over all captions, and drawing by regions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Sparse, sum_deltas
from mnemon.errors import MnemonError
from mnemon.methods import importance, parts
from mnemon.methods.base import Losses, Method, Step, TrainedConcept
from mnemon.methods.importance import Masks, Scope
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings

DRAWS = 64
"""Gradients of single images, each at one timestep, that make a score."""


class CnsLearner(TokenLearner):
    """The entries of D_t under M^t, of all target modules in one vector, and the token vector V*_t."""

    moved: Tensor
    taken: Tensor

    def __init__(
        self,
        method: "Cns",
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> None:
        token = parts.VectorToken(parts.vectors_like(base, class_noun, 1, generator))
        super().__init__(name, class_noun, token, method.token_lr)
        self.method, self.base, self.earlier = method, base, earlier
        self.target_modules = base.target_modules()
        self.bare = {
            target: layer.weight.detach() for target, layer in self.target_modules.items()
        }  # W_0, shared with the base
        self.values = nn.Parameter(torch.zeros(0, device=base.device))
        self._facts: dict[str, Any] = {}
        nothing = {target: torch.zeros_like(weight, dtype=torch.bool) for target, weight in self.bare.items()}
        self._now = {target: Sparse(mask, torch.zeros(0, device=base.device)) for target, mask in nothing.items()}
        if method.score == "wanda":
            past = self._past()
            self._settle(self._select(self._text_scores(past), self._general_by_text(), generator), past)
        else:  # gradients have to wait for `prepare`
            self._settle(nothing, nothing)

    def deltas(self) -> Mapping[str, Sparse]:
        return self._now

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.values], "lr": self.method.learning_rate}, *super().parameter_groups()]

    def prepare(self, losses: Losses, general: Losses | None, generator: torch.Generator) -> None:
        """Where gradients are the score, the masks come from here: W_{t-1} is at work in the base now."""
        if self.method.score == "grad":
            scores = importance.mean_scores(importance.gradient_scores(self.target_modules, losses, DRAWS, generator))
            self._settle(self._select(scores, self._general_by_gradient(general), generator), self._past())

    def before_step(self, generator: torch.Generator) -> None:
        self._scatter()

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda · L_reg, on the trained entries alone: the others add nothing."""
        if self.method.reg == "none":
            return torch.zeros(())
        if self.method.reg == "c-lora":  # the square makes |W_{t-1} - W_0| needless
            return self.method.forget_weight * (self.moved * self.values).square().sum()
        total = (self.taken * self.values).square().sum()
        if self.method.reg == "earlier+base":
            total = total + self.method.base_weight * (self.moved + self.values).square().sum()
        return self.method.forget_weight * total

    def finish(self) -> TrainedConcept:
        values = self.values.detach().cpu().split(self.counts)
        kept = {
            target: Sparse(mask.cpu(), own.clone())
            for (target, mask), own in zip(self.masks.items(), values, strict=True)
        }
        return replace(super().finish(), deltas=kept, facts={**self._facts, **self._overlap()})

    def _past(self) -> dict[str, Tensor]:
        """W_{t-1} - W_0 by target module."""
        past = sum_deltas([one.deltas for one in self.earlier])
        return {
            target: past[target].matrix().to(weight.device)
            if target in past
            else torch.zeros_like(weight, dtype=torch.float)
            for target, weight in self.bare.items()
        }

    def _text_scores(self, past: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """S of W_{t-1} and the concept's own words, its token at the start."""
        weights = {target: weight.float() + past[target] for target, weight in self.bare.items()}
        with torch.no_grad(), self.base.using_tokens({self.name: self.token()}):
            words = importance.concept_words(self.base, self.method.prompt_name(self.name, self.class_noun))
        return importance.text_scores(weights, words)

    def _general_by_text(self) -> Masks | None:
        method = self.method
        if method.mask == "base":
            return None
        return importance.general_by_text(self.base, method.p, method.tau, method.rank_scope)

    def _general_by_gradient(self, losses: Losses | None) -> Masks | None:
        """M_gen of W_0, which takes the place of W_{t-1} meanwhile; the same draws for every concept."""
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
        """M_base AND NOT M_gen, or what the ablations take instead."""
        base = importance.top(scores, self.method.q, self.method.rank_scope)
        if general is None:
            return base
        chosen = {target: mask & ~general[target] for target, mask in base.items()}
        if not importance.entries(chosen):
            raise MnemonError(f"All base neurons of '{self.name}' are general: set 'q' higher, or 'p' lower.")
        self._facts["general_share"] = 1 - importance.entries(chosen) / importance.entries(base)
        return chosen if self.method.mask == "base-general" else importance.shuffled(chosen, generator)

    def _settle(self, masks: Masks, past: Masks) -> None:
        """Train the entries under `masks` from now on; what their price depends on is gathered once."""
        self.masks, self.counts = masks, [int(mask.sum()) for mask in masks.values()]
        taken = importance.union(self.earlier, masks)  # U_{t-1}
        self.register_buffer("taken", _under(masks, taken), persistent=False)
        self.register_buffer("moved", _under(masks, past), persistent=False)
        for target, mask in masks.items():  # with nothing in a graph, which would remember the vector's old length
            self._now[target].mask, self._now[target].values = mask, self.taken[:0]
        self.values.data = torch.zeros_like(self.taken)
        self._scatter()

    def _scatter(self) -> None:
        """Put the trained entries into the target modules' changes, in the graph."""
        for delta, values in zip(self._now.values(), self.values.split(self.counts), strict=True):
            delta.values = values

    def _overlap(self) -> dict[str, Any]:
        """How large the masks are, and how much of them earlier concepts change too: each, and all together."""
        count, size = sum(self.counts), sum(mask.numel() for mask in self.masks.values())
        shares = {one.name: importance.both(self.masks, importance.masks_of(one)) / count for one in self.earlier}
        return {"mask_density": count / size, "shared": float(self.taken.mean()), "shared_with": shares}


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
    """Only the weights are trained that answer to the concept and not to everything: W_t = W_{t-1} + M^t (.) D_t.

    For each adapted W in R^{D1 x D2}, which reads words as rows of X in R^{N x D2}, each row of length 1:

        S_ij(W, X) = |W_ij| · || X_:,j ||_2                    Wanda's score (arXiv 2306.11695)
        M_base     = 1[S_ij(W_{t-1}, X_t) in the layer's top q]           X_t: the token, the noun and the end mark
        M_gen      = 1[S_ij(W_0, X_n) in the layer's top p for at least tau of the captions n]     once for each base
        M^t        = M_base AND NOT M_gen
        U_{t-1}    = OR_{i<t} M^i
        L_reg      = sum || U_{t-1} (.) M^t (.) (W - W_{t-1}) ||_F^2 + mu sum || M^t (.) (W - W_0) ||_F^2   in fp32
        L          = L_diffusion + lambda L_reg

    D_t starts at zero, and only its entries under M^t exist: one vector, scattered into the weights' changes, so that
    the optimiser holds nothing else and can move nothing else. The captions are of diverse things, in words that the
    base knows. V*_t starts as the class noun's embedding, and the noun follows it. Kept are M^t, one bit an entry, and
    the entries under it. Nothing is fused: the changes of all concepts are added up.

    With `score` "grad" the score is |W_ij · dL_diffusion/dW_ij| (SNIP, arXiv 1810.02340): its mean over draws of the
    concept's images and timesteps for M_base, a vote of draws of diverse images by the bare base for M_gen.
    """

    name: ClassVar[str] = "cns"
    trains: ClassVar[str] = "the entries of the cross-attention keys and values under a mask, and the token"
    stores: ClassVar[str] = "one bit for each entry of the masks, the entries under them, and the token's vector"
    fuses: ClassVar[bool] = False
    order_free: ClassVar[bool] = False
    can_remove: ClassVar[bool] = True
    needs_class_images: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2510.02296 (a reading of it; the authors have published no code)"

    q: float = 0.08
    """The share of a layer's entries that are the concept's base neurons. 0.08 of the keys and values of Stable
    Diffusion 1.5 are 0.144 % of all its weights: a concept changes no more, however little of it is general."""
    p: float = 0.08
    """The share of a layer's entries that each caption votes for as general neurons."""
    tau: float = 0.5
    """The share of votes that makes an entry general."""
    score: Literal["wanda", "grad"] = "wanda"
    """Score weights by the words that they read, or by the gradients of the diffusion loss."""
    rank_scope: Scope = "layer"
    """Rank the entries of a whole layer, or those of each of its rows."""
    mask: Literal["base-general", "base", "random"] = "base-general"
    """Train the base neurons without the general ones, all of them, or as many entries at random places."""
    reg: Literal["earlier+base", "earlier", "c-lora", "none"] = "earlier+base"
    """L_reg as above, its first sum only, C-LoRA's sum || |W_{t-1} - W_0| (.) (W - W_{t-1}) ||_F^2, or none."""
    forget_weight: float = 1e-3
    """lambda, for sums over layers and entries."""
    base_weight: float = 1.0
    """mu, the price of leaving the bare base's weights, relative to that of leaving earlier concepts'."""
    learning_rate: float = 2e-3
    """Learning rate of the entries."""
    token_lr: float = 1e-3
    """Learning rate of the token's vector."""
    use_class_noun: bool = True
    """Say the class noun after the token in prompts."""
    steps: int = 200
    """Training steps a concept."""
    batch_size: int = 8
    """Images a step."""

    def __post_init__(self) -> None:
        positive = ("q", "p", "tau", "learning_rate", "token_lr", "batch_size")
        check_settings(self, positive, ("forget_weight", "base_weight", "steps"))
        for name in ("q", "p", "tau"):
            if getattr(self, name) > 1:
                raise MnemonError(f"The setting '{name}' is {getattr(self, name)}; expected a share, at most 1.")

    @property
    def needs_calibration(self) -> bool:  # type: ignore[override]
        return self.score == "grad" and self.mask != "base"

    @property
    def static_text_features(self) -> bool:  # type: ignore[override]
        return self.score == "wanda"

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> CnsLearner:
        return CnsLearner(self, name, class_noun, base, earlier, generator)
