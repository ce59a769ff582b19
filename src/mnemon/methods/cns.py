"""Concept Neuron Selection (Liao et al., ICCV 2025, arXiv 2510.02296).

The authors have published no code. The four steps (base neurons, general neurons, their difference, training on it)
are the paper's; the token's start, scores, ranking, vote, regulariser and every number are this project's reading of
it. Not covered: scores from the attention's outputs, one general score pooled over all samples, and regional sampling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Sparse
from mnemon.methods import importance, neuron_masks
from mnemon.methods.base import Start, Step
from mnemon.methods.neuron_masks import Masks
from mnemon.methods.neuron_selection import SelectingLearner, SelectingMethod
from mnemon.settings import NonNegativeFloat, PositiveFloat

Reg = Literal["owned+free", "earlier+base", "earlier", "c-lora", "none"]


class CnsLearner(SelectingLearner):
    """The token V*_t; once it has learned, the entries of D_t under M^t too, of all target modules in one vector."""

    selected: Tensor
    moved: Tensor
    owned: Tensor
    unit: Tensor

    def __init__(self, method: "Cns", start: Start) -> None:
        super().__init__(method, start)
        self.method, device = method, start.base.device
        shapes = [(layer.out_features, layer.in_features) for layer in self.target_modules.values()]
        room = sum(importance.top_size(shape, method.q, method.rank_scope) for shape in shapes)
        self.values = nn.Parameter(torch.zeros(room, device=device))  # D_t, W - W_{t-1} under M^t, and room
        nothing = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
        self._deltas = {t: Sparse(mask, torch.zeros(0)) for t, mask in zip(self.target_modules, nothing, strict=True)}
        self.counts = [0] * len(shapes)
        flat = torch.zeros(sum(mask.numel() for mask in nothing), dtype=torch.bool, device=device)
        self.register_buffer("selected", flat)  # M^t, part of a checkpoint; the others follow from it
        for name in ("moved", "owned", "unit"):
            self.register_buffer(name, torch.zeros(0, device=device), persistent=False)
        self.register_load_state_dict_post_hook(lambda learner, _: learner.train_under(learner.masks()))

    def masks(self) -> Masks:
        """M^t; empty as long as the token learns alone."""
        sizes = [weight.numel() for weight in self.bare.values()]
        pairs = zip(self.bare.items(), self.selected.split(sizes), strict=True)
        return {target: flat.view(weight.shape) for (target, weight), flat in pairs}

    def train_under(self, masks: Masks) -> None:
        """Step 4: train the entries under `masks` from now on; what L_reg depends on is gathered once."""
        self.selected.copy_(torch.cat([mask.flatten() for mask in masks.values()]))
        self.counts = [int(mask.sum()) for mask in masks.values()]
        self.has_selected = sum(self.counts) > 0
        if not self.has_selected:
            return
        self.owned = _under(masks, neuron_masks.union(self.earlier, masks))  # U_{t-1} = OR_{i<t} M^i
        self.moved = _under(masks, self._past())  # W_{t-1} - W_0
        units = [self.bare[target].float().square().mean().sqrt() for target in masks]  # rms(W_0)
        self.unit = torch.cat([unit.expand(count) for unit, count in zip(units, self.counts, strict=True)])
        for target, mask in self.masks().items():
            self._deltas[target].mask, self._deltas[target].values = mask, self.owned[:0]
        self._scatter()

    def before_step(self, generator: torch.Generator) -> None:
        self._scatter()

    def _scatter(self) -> None:
        """Put the trained entries into the target modules' deltas, in the graph. Before there are any, no optimiser
        state comes to be."""
        if self.has_selected:
            for delta, values in zip(self._deltas.values(), self.changes.split(self.counts), strict=True):
                delta.values = values  # W_t = W_{t-1} + M^t (.) D_t

    @property
    def changes(self) -> Tensor:
        """The entries of D_t under M^t."""
        return self.values[: sum(self.counts)]

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda L_reg, on the trained entries alone: the others add nothing."""
        method, moved, change = self.method, self.moved, self.changes
        if method.reg == "none" or not self.has_selected:
            return torch.zeros(())
        relative = method.forget_scale == "relative"
        if relative:
            moved, change = moved / self.unit, change / self.unit
        terms = regularised(method.reg, method.base_weight, change, moved, self.owned)
        loss = terms.mean() if relative else terms.sum()
        weight = method.forget_weight
        return self.protecting("forget_weight", weight, loss) if self.earlier else weight * loss

    def deltas(self) -> Mapping[str, Sparse]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.values], "lr": self.method.learning_rate}, self.token_group()]

    def stored_deltas(self) -> dict[str, Sparse]:
        values = self.changes.detach().cpu().split(self.counts)
        pairs = zip(self.masks().items(), values, strict=True)
        return {target: Sparse(mask.cpu(), entries.clone()) for (target, mask), entries in pairs}

    def facts(self) -> dict[str, Any]:
        """How large the mask is, how much of M_base was general, and how much of it earlier concepts change too."""
        masks, count = self.masks(), sum(self.counts)
        if not count:
            return {"mask_density": 0.0}
        theirs = {one.name: neuron_masks.stored_masks(one) for one in self.earlier}
        return {
            "mask_density": count / len(self.selected),
            "general_share": 1 - count / len(self.values),
            "shared": float(self.owned.mean()),
            "shared_with": {name: neuron_masks.both(masks, mask) / count for name, mask in theirs.items()},
            "mask_iou": {name: neuron_masks.iou(masks, mask) for name, mask in theirs.items()},
        }


def regularised(reg: Reg, base_weight: float, change: Tensor, moved: Tensor, owned: Tensor) -> Tensor:
    """Entry by entry what L_reg adds up, of W - W_{t-1}, W_{t-1} - W_0 and U_{t-1} under M^t; mu is `base_weight`."""
    if reg == "c-lora":  # the square makes |W_{t-1} - W_0| needless
        return (moved * change).square()
    earlier = (owned * change).square()  # U_{t-1} (.) M^t (.) (W - W_{t-1})
    if reg == "earlier":
        return earlier
    pulled = moved + change  # M^t (.) (W - W_0)
    return earlier + base_weight * (pulled if reg == "earlier+base" else (1 - owned) * pulled).square()


def _under(masks: Masks, matrices: Mapping[str, Tensor]) -> Tensor:
    """The entries of the matrices under the masks, all target modules in one vector, in fp32."""
    return torch.cat([matrices[target][mask] for target, mask in masks.items()]).float()


@dataclass(frozen=True)
class Cns(SelectingMethod):
    """Only the weights that are a concept's own are trained, once its token has learned: W_t = W_{t-1} + M^t (.) D_t.

    V*_t learns alone in the first share of the steps. Then, for each adapted W in R^{D1 x D2}:

        S(V)     = mean of | W (.) dL_diffusion/dW |      SNIP (arXiv 1810.02340): the concept's images, V as its token
        M_base   = 1[S(V*_t) - S(V_noun) in the layer's top q]        at W_{t-1}; the same images, timesteps and noise
        M_gen    = 1[S'_n in the layer's top p for at least tau of the diverse samples n]      at W_0, the bare base
        M^t      = M_base AND NOT M_gen
        U_{t-1}  = OR_{i<t} M^i
        L_reg    = mean of U_{t-1} (.) (W - W_{t-1})^2 + mu (1 - U_{t-1}) (.) (W - W_0)^2      over M^t; W / rms(W_0)
        L        = L_diffusion + lambda L_reg

    V_noun are the class noun's embeddings in the token's place, or where V*_t began without a noun: what the noun needs
    as well is no concept's own. L_reg, in fp32, holds entries that earlier concepts own as these left them, and the
    others near the bare base; changes are relative to their layer's root mean square, so that it has no unit.

    With `score` "wanda" S is the size of the weights times that of the text features that they read, rows of
    X in R^{N x D2} of length 1: S_ij = |W_ij| · || X_:,j ||_2 (arXiv 2306.11695), of the token, the noun and EOS; no
    image is looked at. S'_n is this score of a caption of diverse things, in words of one token, or the gradient score
    of such an image (`general`).

    D_t starts at zero, and only its entries under M^t exist: one vector, scattered into the deltas, so that the
    optimiser has no other state. Stored are M^t, one bit per entry, and the entries under it. There is no fusion: the
    changes of all concepts are added up. With `token_share` 0 nothing is taken away for the noun.
    """

    name: ClassVar[str] = "cns"
    trains: ClassVar[str] = "the entries of the cross-attention keys and values under a mask, and the token"
    stores: ClassVar[str] = "one bit for each entry of the masks, the entries under them, and the token's vector"
    source: ClassVar[str] = "arXiv 2510.02296 (a reading of it; the authors have published no code)"

    forget_weight: NonNegativeFloat = 0.1
    """lambda, for the mean over the entries of M^t."""
    base_weight: NonNegativeFloat = 1.0
    """mu, the weight of the free entries' distance from the bare base, relative to that of the owned ones."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of the entries."""

    # Ablation switches
    reg: Reg = "owned+free"
    """L_reg as above; with its second term on all entries of M^t, so that those of earlier concepts are pulled half-way
    back (`earlier+base`); its first term only; C-LoRA's || |W_{t-1} - W_0| (.) (W - W_{t-1}) ||_F^2; or none."""
    forget_scale: Literal["relative", "sum"] = "relative"
    """L_reg as above, or as the plain sum over layers and entries."""

    def begin(self, start: Start) -> CnsLearner:
        return CnsLearner(self, start)
