"""STAMINA: STack-And-Mask INcremental Adapters (Smith et al., arXiv 2311.18763).

The authors publish no code; forms and values that the abstract leaves open are this project's reading of it. Not
covered: other inputs of the mask networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mnemon.adapters import Delta, sum_deltas
from mnemon.methods import parts
from mnemon.methods.base import Learner, Method, Start, Step, TokenInit
from mnemon.methods.masked_stack import MaskedStacks, MaskSettings
from mnemon.settings import NonNegativeFloat, PositiveFloat, PositiveInt


class StaminaLearner(Learner):
    """A_t, B_t, the mask networks and MLP_t of one concept."""

    progress: Tensor

    def __init__(self, method: "Stamina", start: Start) -> None:
        base, generator = start.base, start.generator
        vectors = method.init_embeddings(start)
        mlp = method.token == "mlp"
        token = parts.MlpToken(vectors, method.token_hidden, generator) if mlp else parts.VectorToken(vectors)
        super().__init__(start, token, method.token_lr)  # V*_t = MLP_t(1)
        self.method, self.first_concept = method, not start.earlier
        self.register_buffer("progress", torch.zeros(()))  # of the run; a buffer, for a resumed run needs it
        self.latest = 0.0
        past = sum_deltas([concept.deltas for concept in start.earlier])  # P_{t-1}, once: a step's cost is free of t
        self.stacks = MaskedStacks(method, base.target_modules(), past, generator)

    def deltas(self) -> Mapping[str, Delta]:
        return self.stacks.deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        factors, *gates = self.stacks.parameter_groups()
        return [factors, self.token_group(), *gates]

    def before_step(self, generator: torch.Generator) -> None:
        self.stacks.before_step(generator, float(self.progress))

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        method = self.method
        if step is not None:
            self.latest = step.progress
        loss = self.stacks.sparsity()
        if method.forget != "none" and not self.first_concept and self.latest >= method.forget_start:
            loss = self.protecting("forget_weight", method.forget_weight, self.stacks.forgetting()) + loss
        return loss

    def after_step(self, progress: float) -> None:
        self.progress.fill_(self.latest)  # only now: every part of a step has masks of one density

    def stored_deltas(self) -> dict[str, Delta]:
        return self.stacks.stored()

    def facts(self) -> dict[str, Any]:
        return self.stacks.facts()


@dataclass(frozen=True)
class Stamina(MaskSettings, Method):
    """Low-rank changes under learned hard masks, a token from an MLP, and regularisation of the entries that earlier
    concepts use.

    For each adapted W in R^{D1 x D2} and concept t:

        Delta_t  = (A_t B_t) (.) M_t            W_t = W_{t-1} + Delta_t         A_t (D1, r) starts at zero, B_t (r, D2)
        S_t      = g(U_t) h(Q_t) + b0           logits; U_t (D1, r_m), Q_t (r_m, D2); g, h: the identity, or small MLPs
        M_t      = 1[S_t > theta]               theta: the quantile of S_t that leaves the share rho_s of step s open
        V*_t     = MLP_t(1)                     the token, near the noun at first; stored, the MLP is dropped
        P_{t-1}  = sum_{t'<t} (A_t' B_t') (.) M_t' = W_{t-1} - W_init
        L_forget = sum (P_{t-1} (.) Delta_t)^2 / (sum P_{t-1}^2 · mean W^2)     over all layers' entries, in fp32
        L        = L_diffusion + lambda L_forget

    In training M_t has the gradient of sigmoid((S_t - theta) / tau), straight through. rho_s falls from 1 to rho over
    the first half of the steps: gates compete for a fixed number of places, and neither rate nor base decides how many
    stay open. A gate is one column of W, one text feature, so Delta_t keeps the rank r; a gate for each entry
    (`mask_unit`) gives it full rank, stored as factors and a packed mask. L_forget is the mean of Delta^2 where earlier
    concepts are, relative to the weights: it has no unit (`forget_scale` "sum": || P_{t-1} (.) Delta_t ||_F^2). With
    `sparsity` "penalty" theta is 0, and lambda_s mean sigmoid(S_t / tau) closes gates that a concept does not need.
    """

    name: ClassVar[str] = "stamina"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, their masks, and the token's MLP"
    follows_progress: ClassVar[bool] = True
    stores: ClassVar[str] = "the factors under their masks, and the token's vectors"
    source: ClassVar[str] = "arXiv 2311.18763 (a reading of it; the authors publish no code)"

    token_hidden: PositiveInt = 256
    """Hidden units of the token's MLP."""
    token_init: TokenInit = "class_noun"
    """Where the embeddings start: at the class noun's (`class_noun`; random where there is no noun), or at random."""
    token_lr: PositiveFloat = 5e-3
    """How far a step moves the entries of the embeddings; the MLP's learning rate follows from it."""
    num_vectors: PositiveInt = 3
    """Number of embeddings per placeholder token. Embeddings are not regularised, so more of them let a late concept
    learn without changing shared weights."""
    use_class_noun: bool = True
    """Put the class noun after the token in prompts. The paper leaves it out."""
    token: Literal["mlp", "vector"] = "mlp"
    """Train an MLP that emits the token embeddings, or the embeddings themselves."""
    forget_start: NonNegativeFloat = 0.0
    """The share of the steps after which L_forget begins."""

    def begin(self, start: Start) -> StaminaLearner:
        return StaminaLearner(self, start)
