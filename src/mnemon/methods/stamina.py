"""STAMINA: STack-And-Mask INcremental Adapters (Smith et al., arXiv 2311.18763).

The authors publish no code; forms and values that the abstract leaves open are this project's reading of it. Not
covered: masks for whole rows or columns, and other inputs of the mask networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, Dense, LowRank, MaskedLowRank, sum_deltas, zeros
from mnemon.methods import parts
from mnemon.methods.base import Method, Step, TrainedConcept
from mnemon.methods.masks import MaskKind, MaskLogits, MaskParam, gates_of, mask_of, training_logits
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base
from mnemon.settings import check_settings


class MaskedStack(nn.Module):
    """The n target modules whose weights have one shape (D1, D2), computed together: every tensor has n in front."""

    past: Tensor

    def __init__(
        self,
        method: "Stamina",
        factors: Mapping[str, tuple[Tensor, Tensor]],
        past: Mapping[str, Dense],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.target_modules, self.method = list(factors), method
        ups, downs = zip(*factors.values(), strict=True)
        self.a = nn.Parameter(torch.stack(ups))  # A_t (n, D1, r), zero
        self.b = nn.Parameter(torch.stack(downs))  # B_t (n, r, D2)
        shape = (len(ups), self.a.shape[1], self.b.shape[2])
        if method.mask != "none":
            self.logits = MaskLogits(shape, method.mask_rank, method.b0, method.mask_param, generator, self.a.device)
        before = torch.zeros(shape, device=self.a.device)  # P_{t-1} (n, D1, D2)
        for index, target in enumerate(self.target_modules):
            if target in past:
                before[index] = past[target].matrix()
        self.register_buffer("past", before, persistent=False)

    def before_step(self, generator: torch.Generator) -> None:
        """This step's Delta_t = (A_t B_t) (.) M_t, kept for the forward pass and for the penalty."""
        product = torch.bmm(self.a, self.b)
        if self.method.mask == "none":
            self.delta = product
        elif self.training:
            self.noisy = training_logits(self.logits(), self.method.mask, generator)
            self.delta = product * mask_of(self.noisy, self.method.mask, self.method.tau)
        else:
            self.delta = product * self.final_mask()

    def forgetting(self) -> Tensor:
        """sum || |P_{t-1}| (.) Delta_t ||_F^2 over these target modules."""
        return (self.past * self.delta).square().sum()

    def gates(self) -> Tensor:
        """The soft gates of this step, (n, D1, D2)."""
        return gates_of(self.noisy, self.method.tau)

    def final_mask(self) -> Tensor:
        """M_t = 1[S_t > 0], without noise."""
        return mask_of(self.logits(), self.method.mask, self.method.tau)

    def kept(self) -> dict[str, Delta]:
        """The finished deltas by target module."""
        a, b = self.a.detach().cpu(), self.b.detach().cpu()
        if self.method.mask == "none":
            return {target: LowRank(a[i].clone(), b[i].clone()) for i, target in enumerate(self.target_modules)}
        mask = self.final_mask().detach().cpu()
        if self.method.mask == "soft":
            return {target: Dense((a[i] @ b[i]) * mask[i]) for i, target in enumerate(self.target_modules)}
        return {
            target: MaskedLowRank(a[i].clone(), b[i].clone(), mask[i] > 0)
            for i, target in enumerate(self.target_modules)
        }


class StaminaLearner(TokenLearner):
    """A_t, B_t, the mask networks and MLP_t of one concept."""

    def __init__(
        self,
        method: "Stamina",
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> None:
        super().__init__(name, class_noun, start_token(method, class_noun, base, generator), method.token_lr)
        self.method = method
        past = sum_deltas([one.deltas for one in earlier])  # P_{t-1}, once: a step's cost does not grow with t
        groups: dict[tuple[int, int], dict[str, tuple[Tensor, Tensor]]] = {}
        for target, layer in base.target_modules().items():
            factors = parts.start_factors(layer, method.rank, generator)
            groups.setdefault((layer.out_features, layer.in_features), {})[target] = factors
        self.stacks = nn.ModuleList(MaskedStack(method, factors, past, generator) for factors in groups.values())
        self.penalised = bool(earlier)
        self._now = {
            target: zeros((layer.out_features, layer.in_features), base.device)
            for target, layer in base.target_modules().items()
        }

    def deltas(self) -> Mapping[str, Dense]:
        return self._now

    def parameter_groups(self) -> list[dict[str, Any]]:
        factors = [factor for stack in self._stacks() for factor in (stack.a, stack.b)]
        groups = [{"params": factors, "lr": self.method.learning_rate}, *super().parameter_groups()]
        if self.method.mask != "none":
            masks = [parameter for stack in self._stacks() for parameter in stack.logits.parameters()]
            groups.append({"params": masks, "lr": self.method.mask_lr})
        return groups

    def before_step(self, generator: torch.Generator) -> None:
        for stack in self._stacks():
            stack.before_step(generator)
            for target, delta in zip(stack.target_modules, stack.delta.unbind(0), strict=True):
                self._now[target].values = delta

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """lambda · L_forget + lambda_s · L_sparse."""
        total = torch.zeros((), device=self._stacks()[0].a.device)
        if self.method.forget == "masked" and self.penalised:
            total = total + self.method.forget_weight * sum(stack.forgetting() for stack in self._stacks())
        if self.method.sparsity_weight and self.method.mask != "none":
            gates = [stack.gates() for stack in self._stacks()]
            mean = sum(one.sum() for one in gates) / sum(one.numel() for one in gates)
            total = total + self.method.sparsity_weight * mean
        return total

    def finish(self) -> TrainedConcept:
        deltas = {target: delta for stack in self._stacks() for target, delta in stack.kept().items()}
        ordered = {target: deltas[target] for target in self._now}
        return replace(super().finish(), deltas=ordered, facts=self._facts())

    def _facts(self) -> dict[str, Any]:
        if self.method.mask == "none":
            return {}
        with torch.no_grad():
            masks = [stack.final_mask() for stack in self._stacks()]
        return {"mask_density": sum(float(m.sum()) for m in masks) / sum(m.numel() for m in masks)}

    def _stacks(self) -> list[MaskedStack]:
        return list(self.stacks)  # type: ignore[arg-type]


def start_token(method: "Stamina", class_noun: str | None, base: Base, generator: torch.Generator) -> parts.Token:
    """MLP_t, or the vectors themselves; they start near the noun, if there is one."""
    start = parts.vectors_like(base, class_noun, method.vectors, generator)
    mlp = method.token == "mlp"
    return parts.MlpToken(start, method.token_hidden, generator) if mlp else parts.VectorToken(start)


@dataclass(frozen=True)
class Stamina(Method):
    """Low-rank changes under learned hard masks, a token from an MLP, and a price on entries that earlier concepts use.

    For each adapted W in R^{D1 x D2} and concept t:

        Delta_t  = (A_t B_t) (.) M_t            W_t = W_{t-1} + Delta_t         A_t (D1, r) starts at zero, B_t (r, D2)
        S_t      = g(U_t) h(Q_t) + b0           logits; U_t (D1, r_m), Q_t (r_m, D2); g, h: nothing, or small MLPs
        M_t      = 1[S_t > 0]                   in training straight-through: the gradient of sigmoid(S_t / tau)
        V*_t     = MLP_t(1)                     the token, near the noun at first; stored, the MLP is dropped
        P_{t-1}  = sum_{t'<t} (A_t' B_t') (.) M_t' = W_{t-1} - W_init
        L_forget = sum over layers of || |P_{t-1}| (.) (A_t B_t) (.) M_t ||_F^2       in fp32
        L_sparse = mean over layers' entries of sigmoid(S_t / tau)
        L        = L_diffusion + lambda L_forget + lambda_s L_sparse

    A masked product is in general of full rank, so it is stored as factors and a packed mask. L_sparse shuts gates that
    a concept does not need, and so leaves entries to the concepts to come. HAT's (arXiv 1801.01423) leaves out entries
    that earlier concepts use, as there these cannot change; here they can, so their gates are to be shut first of all.
    """

    name: ClassVar[str] = "stamina"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, their masks, and the token's MLP"
    stores: ClassVar[str] = "the factors, one bit for each entry of the masks, and the token's vectors"
    fuses: ClassVar[bool] = False
    order_free: ClassVar[bool] = False
    can_remove: ClassVar[bool] = True
    needs_class_images: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2311.18763 (a reading of it; the authors publish no code)"

    rank: int = 16
    """r, the width of the factors."""
    learning_rate: float = 1e-3
    """Learning rate of the factors."""
    mask: MaskKind = "sigmoid_st"
    """Hard masks without noise in training, with Gumbel noise (`gumbel_st`), soft masks (`soft`), or none."""
    mask_param: MaskParam = "factor_linear"
    """Mask logits from the plain product of the factors U and Q, or from MLPs of them (`factor_mlp`, the paper's)."""
    mask_rank: int = 16
    """r_m, the width of U and Q and of the mask networks."""
    mask_lr: float = 1e-2
    """Learning rate of the masks' factors and networks."""
    b0: float = 2.0
    """Where the mask logits start: 2 keeps 88 % of the gates open at first."""
    tau: float = 1.0
    """Temperature of the gates."""
    token: Literal["mlp", "vector"] = "mlp"
    """Train an MLP that emits the token's vectors, or the vectors themselves."""
    token_hidden: int = 256
    """Width of the token's MLP."""
    token_lr: float = 5e-3
    """How far a step moves the token's entries; the MLP's learning rate follows from it."""
    vectors: int = 3
    """How many vectors the token stands for: what they learn, no earlier concept is in the way of."""
    use_class_noun: bool = True
    """Say the class noun after the token in prompts. The paper leaves it out."""
    forget: Literal["masked", "none"] = "masked"
    """The price on entries that earlier concepts use, or none."""
    forget_weight: float = 10.0
    """lambda, for the sum over layers and entries."""
    sparsity_weight: float = 0.05
    """lambda_s, where there are masks."""
    steps: int = 200
    """Training steps a concept."""
    batch_size: int = 8
    """Images a step."""

    def __post_init__(self) -> None:
        positive = (
            "rank",
            "learning_rate",
            "mask_rank",
            "mask_lr",
            "tau",
            "token_hidden",
            "token_lr",
            "vectors",
            "batch_size",
        )
        check_settings(self, positive, ("forget_weight", "sparsity_weight", "steps"))

    def begin(
        self,
        name: str,
        class_noun: str | None,
        base: Base,
        earlier: Sequence[TrainedConcept],
        generator: torch.Generator,
    ) -> StaminaLearner:
        return StaminaLearner(self, name, class_noun, base, earlier, generator)
