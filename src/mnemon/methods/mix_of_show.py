"""Mix-of-Show (Gu et al., NeurIPS 2023, arXiv 2305.18292): concepts trained independently, and gradient fusion of
their weights.

The fusion is solved in closed form instead of by L-BFGS. Not covered: changes of the text encoder and of the U-Net's
other layers and their fusion, and regional sampling, which any method may use (`mnemon.sampling`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mnemon.adapters import Delta, Dense, mean_deltas
from mnemon.methods.base import Start, TrainedConcept
from mnemon.methods.ed_lora import EdLora, EdLoraLearner
from mnemon.models.base import Base
from mnemon.settings import PositiveFloat

PROMPTS = ("{}", "photo of a {}")
"""Prompts on which the fused weights have to agree with each concept's; the concept stands last."""


def fuse(changes: Sequence[Tensor], features: Sequence[Tensor], ridge: float) -> Tensor:
    """D* = W* - W_0 (D1, D2) of one weight matrix, in closed form: the minimum over D of

        sum_i || (dW_i - D) X_i ||_F^2 + eps || D ||_F^2,        eps = ridge · tr(sum_i G_i) / D2

    which is [sum_i dW_i G_i] [sum_i G_i + eps I]^-1 with G_i = X_i X_i^T; W_0 has dropped out. Computed in fp64.

    Args:
        changes: dW_i of each concept, (D1, D2).
        features: X_i^T of each concept, (rows, D2).
        ridge: eps as a share of the mean square of what the directions carry.
    """
    grams = [rows.double().T @ rows.double() for rows in features]
    wanted = torch.stack([change.double() @ gram for change, gram in zip(changes, grams, strict=True)]).sum(0)
    gram = torch.stack(grams).sum(0)
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    return torch.cholesky_solve(wanted.T, torch.linalg.cholesky(gram)).T.float()


@torch.no_grad()
def own_features(base: Base, called: str) -> Tensor:
    """X_i^T of every layer, (layers, rows, D2) in fp64: the tokens of what the concept is `called` and EOS, in both
    prompts."""
    features = base.token_features([prompt.format(called) for prompt in PROMPTS])
    own = features[0].shape[-2]
    return torch.cat([words[..., -own:, :] for words in features], dim=-2).cpu().double()


@dataclass(frozen=True)
class MixOfShow(EdLora):
    """ED-LoRA concepts, each trained on the bare base, and gradient fusion of their weights, matrix by matrix:

        dW_i = A_i B_i                                  of concept i, with a token V_rand V_class for each layer
        X_i  = text features of "<v>" and "photo of a <v>" at this layer, of the token and EOS, (D2, n)
        W*   = argmin_W  sum_i || (W_0 + dW_i) X_i - W X_i ||_F^2 + eps || W - W_0 ||_F^2
             = [sum_i (W_0 + dW_i) G_i + eps W_0] [sum_i G_i + eps I]^-1            G_i = X_i X_i^T

    so the fused weights map each concept's words as its own weights do, and features in other directions as W_0 does.
    The paper goes from W_0 to the minimum without eps by L-BFGS. Weight fusion, its ablation, is the mean:
    W* = W_0 + (1/n) sum_i dW_i.
    """

    name: ClassVar[str] = "mix-of-show"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, and two token vectors a layer"
    stores: ClassVar[str] = "the factors and the token's vectors"
    fuses: ClassVar[bool] = True
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2305.18292, fused in closed form"

    fusion: Literal["gradient", "weight"] = "gradient"
    """Gradient fusion as above, or the mean of the changes."""
    ridge: PositiveFloat = 0.1
    """eps as a share of the mean diagonal entry of sum_i G_i. Concepts' features are similar: with
    next to no eps, W* separates them by changes far larger than the concepts' own, at the cost of other words."""

    def begin(self, start: Start) -> EdLoraLearner:
        return EdLoraLearner(self, start)

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        if self.fusion == "weight":
            return dict(mean_deltas([one.deltas for one in learned]))
        features = [own_features(base, self.prompt_name(one.name, one.class_noun)) for one in learned]
        fused: dict[str, Delta] = {}
        for index, layer in enumerate(base.cross_attention_layers()):
            here = [rows[index] for rows in features]
            for target in (target for target in base.target_modules() if learned and target.startswith(f"{layer}.")):
                fused[target] = Dense(fuse([one.deltas[target].matrix() for one in learned], here, self.ridge))
        return fused
