"""STAMINA for classification (Smith et al., arXiv 2311.18763): its adapters without the token.

The authors publish no code; forms and values are this project's reading, as in `mnemon.methods.stamina`.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemon.adapters import Delta, attach, sum_deltas
from mnemon.classification.backbone import Backbone
from mnemon.classification.methods.adapters import Changed
from mnemon.classification.methods.base import Batch, ClassifierMethod, Learner, Start
from mnemon.methods.masked_stack import MaskedStacks, MaskSettings
from mnemon.settings import PositiveInt


class StaminaLearner(Learner):
    """A_t, B_t and the masks of every target."""

    def __init__(self, method: "Stamina", start: Start) -> None:
        super().__init__()
        self.method, self.first_task = method, not start.earlier
        self.layers = start.backbone.projections(method.targets)
        past = sum_deltas([task.deltas for task in start.earlier])
        self.stacks = MaskedStacks(method, self.layers, past, start.generator)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.stacks.parameter_groups()

    def attached(self, backbone: Backbone) -> AbstractContextManager[object]:
        return attach(self.layers, self.stacks.deltas)

    def before_step(self, generator: torch.Generator, progress: float) -> None:
        self.stacks.before_step(generator, progress)

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        loss = self.stacks.sparsity()
        if self.method.forget != "none" and not self.first_task:
            loss = loss + self.method.forget_weight * self.stacks.forgetting()
        return loss

    def deltas(self) -> dict[str, Delta]:
        return self.stacks.stored()

    def facts(self) -> dict[str, Any]:
        return self.stacks.facts()


@dataclass(frozen=True)
class Stamina(MaskSettings, ClassifierMethod):
    """Low-rank changes under learned hard masks, and regularisation of the entries that earlier tasks use:

        Delta_t  = (A_t B_t) (.) M_t            W_t = W_{t-1} + Delta_t         A_t (D1, r) starts at zero, B_t (r, D2)
        M_t      = 1[S_t > theta]               S_t = g(U_t) h(Q_t) + b0; theta: the quantile that leaves rho_s open
        P_{t-1}  = sum_{t'<t} Delta_t'
        L_forget = sum (P_{t-1} (.) Delta_t)^2 / (sum P_{t-1}^2 · mean W^2)     over all layers' entries, in fp32
        L        = CE + lambda L_forget

    Masks, their training and the settings are those of STAMINA for diffusion; there is no token. Ablations: `mask`
    "none" (with `forget_scale` "sum": C-LoRA) or "soft", `forget` "none", and no sparsity by `sparsity` "penalty" with
    `sparsity_weight` 0.
    """

    name: ClassVar[str] = "stamina"
    source: ClassVar[str] = "arXiv 2311.18763 (a reading of it; the authors publish no code)"
    trains: ClassVar[str] = "low-rank factors of the queries, keys and values of every block, and their masks"
    stores: ClassVar[str] = "the factors under their masks"

    rank: PositiveInt = 64
    """r, the rank of the factors."""
    targets: Changed = "qkv"
    """Which projections are changed: queries, keys and values, keys and values, or queries and values."""

    def begin(self, start: Start) -> StaminaLearner:
        return StaminaLearner(self, start)
