"""STAMINA: STack-And-Mask INcremental Adapters (Smith et al., arXiv 2311.18763).

The authors publish no code; forms and values that the abstract leaves open are this project's reading of it. Not
covered: other inputs of the mask networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, Dense, LowRank, MaskedLowRank, sum_deltas, zeros
from mnemon.methods import masks, parts
from mnemon.methods.base import Learner, Method, Start, Step, TokenInit
from mnemon.methods.masks import MaskKind, MaskLogits, MaskParam
from mnemon.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Share


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
            gates = {"entry": shape, "row": (*shape[:2], 1), "column": (shape[0], 1, shape[2])}[method.mask_unit]
            self.logits = MaskLogits(gates, method.mask_rank, method.b0, method.mask_param, generator, self.a.device)
        before = torch.zeros(shape, device=self.a.device)  # P_{t-1} (n, D1, D2)
        for index, target in enumerate(self.target_modules):
            if target in past:
                before[index] = past[target].matrix()
        self.register_buffer("past", before, persistent=False)

    def before_step(self, generator: torch.Generator, density: float) -> None:
        """Delta_t of this step, kept for the forward pass and for L_forget."""
        method = self.method
        self.product = torch.bmm(self.a, self.b)  # A_t B_t
        if method.mask == "none":
            self.mask = self.product.new_ones(())
        elif self.training:
            noisy = masks.training_logits(self.logits(), method.mask, generator)
            if self.held:
                noisy = noisy - masks.sampled_quantile(noisy.detach(), 1 - density, generator)
            self.noisy = noisy  # S_t
            self.mask = masks.training_mask(self.noisy, method.mask, method.tau)  # M_t
        else:
            self.mask = self.final_mask(density)
        self.delta = self.product * self.mask  # Delta_t = (A_t B_t) (.) M_t

    @property
    def held(self) -> bool:
        return self.method.sparsity == "density"

    def forgetting(self) -> Tensor:
        mask = self.mask if self.method.forget == "masked" else self.mask.detach()
        return (self.past * self.product * mask).square().sum()  # L_forget: || |P_{t-1}| (.) Delta_t ||_F^2

    def gates(self) -> Tensor:
        """(n, D1, D2)"""
        return masks.soft_gates(self.noisy, self.method.tau)  # sigmoid(S_t / tau)

    def final_mask(self, density: float) -> Tensor:
        """Without noise, (n, D1, D2)."""
        logits = self.logits()
        if self.held:
            logits = logits - masks.largest(logits, density)
        return masks.training_mask(logits, self.method.mask, self.method.tau)  # M_t = 1[S_t > 0]

    def stored(self) -> dict[str, Delta]:
        """The deltas to store, by target module."""
        pairs = [(a.clone(), b.clone()) for a, b in zip(self.a.detach().cpu(), self.b.detach().cpu(), strict=True)]
        if self.method.mask == "none":
            return {target: LowRank(a, b) for target, (a, b) in zip(self.target_modules, pairs, strict=True)}
        final = self.final_mask(self.method.density).detach().cpu()
        triples = zip(self.target_modules, pairs, final, strict=True)
        if self.method.mask_unit == "column":  # A (B (.) M): of rank r
            return {target: LowRank(a, b * mask) for target, (a, b), mask in triples}
        if self.method.mask_unit == "row":
            return {target: LowRank(a * mask, b) for target, (a, b), mask in triples}
        if self.method.mask == "soft":
            return {target: Dense((a @ b) * mask) for target, (a, b), mask in triples}
        return {target: MaskedLowRank(a, b, mask > 0) for target, (a, b), mask in triples}


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
        layers = base.target_modules()
        past = sum_deltas([concept.deltas for concept in start.earlier])  # P_{t-1}, once: a step's cost is free of t
        groups: dict[tuple[int, int], dict[str, tuple[Tensor, Tensor]]] = {}
        for target, layer in layers.items():
            factors = parts.init_factors(layer, method.rank, generator)
            groups.setdefault((layer.out_features, layer.in_features), {})[target] = factors
        self.stacks = nn.ModuleList(MaskedStack(method, factors, past, generator) for factors in groups.values())
        shapes = {target: (layer.out_features, layer.in_features) for target, layer in layers.items()}
        self._deltas = {target: zeros(shape, base.device) for target, shape in shapes.items()}
        moved = {target: delta.matrix() for target, delta in past.items() if target in layers}
        self.scale = parts.relative_scale(moved, layers) if method.forget_scale == "relative" else 1.0

    def deltas(self) -> Mapping[str, Dense]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        factors = [factor for stack in self._stacks() for factor in (stack.a, stack.b)]
        groups = [{"params": factors, "lr": self.method.learning_rate}, self.token_group()]
        if self.method.mask != "none":
            gates = [parameter for stack in self._stacks() for parameter in stack.logits.parameters()]
            groups.append({"params": gates, "lr": self.method.mask_lr})
        return groups

    def before_step(self, generator: torch.Generator) -> None:
        density = self.method.density_at(float(self.progress))
        for stack in self._stacks():
            stack.before_step(generator, density)
            for target, delta in zip(stack.target_modules, stack.delta.unbind(0), strict=True):
                self._deltas[target].values = delta  # W_t = W_{t-1} + Delta_t

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        method, stacks = self.method, self._stacks()
        total = torch.zeros((), device=stacks[0].a.device)
        if step is not None:
            self.latest = step.progress
        if method.forget != "none" and not self.first_concept and self.latest >= method.forget_start:
            forgetting = sum((stack.forgetting() for stack in stacks), torch.zeros_like(total))  # L_forget
            total = total + self.protecting("forget_weight", method.forget_weight, self.scale * forgetting)
        if method.sparsity == "penalty" and method.sparsity_weight and method.mask != "none":
            gates = [stack.gates() for stack in stacks]
            mean = sum(gate.sum() for gate in gates) / sum(gate.numel() for gate in gates)
            total = total + method.sparsity_weight * mean  # lambda_s L_sparse
        return total

    def after_step(self, progress: float) -> None:
        self.progress.fill_(self.latest)  # only now: every part of a step has masks of one density

    def stored_deltas(self) -> dict[str, Delta]:
        deltas = {target: delta for stack in self._stacks() for target, delta in stack.stored().items()}
        return {target: deltas[target] for target in self._deltas}

    @torch.no_grad()
    def facts(self) -> dict[str, Any]:
        if self.method.mask == "none":
            return {}
        final = [stack.final_mask(self.method.density) for stack in self._stacks()]
        return {"mask_density": sum(float(m.sum()) for m in final) / sum(m.numel() for m in final)}

    def _stacks(self) -> list[MaskedStack]:
        return list(self.stacks)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stamina(Method):
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

    rank: PositiveInt = 16
    """r, the rank of the factors."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of the factors."""
    mask_rank: PositiveInt = 16
    """r_m, the width of U and Q and of the mask networks."""
    mask_lr: PositiveFloat = 1e-2
    """Learning rate of the masks' factors and networks."""
    b0: float = 2.0
    """Initial bias of the mask logits, trained with them: at 2 all gates start open, with `gumbel_st` 88 % of them."""
    tau: PositiveFloat = 1.0
    """Temperature of the gates."""
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
    forget_weight: NonNegativeFloat = 10.0
    """lambda, for the sum over layers and entries."""
    density: Share = 0.4
    """rho, the share of gates that are open at the end, where `sparsity` is `density`."""
    sparsity_weight: NonNegativeFloat = 0.05
    """lambda_s, where `sparsity` is `penalty`."""

    # Ablation switches
    mask: MaskKind = "sigmoid_st"
    """Hard masks without noise in training, with Gumbel noise (`gumbel_st`), soft masks (`soft`), or none."""
    mask_param: MaskParam = "factor_linear"
    """Mask logits from the plain product of the factors U and Q, or from MLPs of them (`factor_mlp`, the paper's)."""
    token: Literal["mlp", "vector"] = "mlp"
    """Train an MLP that emits the token embeddings, or the embeddings themselves."""
    mask_unit: Literal["entry", "row", "column"] = "column"
    """A gate for each entry of a weight, each row, or each column, which is one text feature."""
    sparsity: Literal["density", "penalty"] = "density"
    """Hold the masks at the density rho, or let L_sparse close gates."""
    forget: Literal["masked", "factors", "none"] = "masked"
    """Regularise what earlier concepts use, in factors and masks (`masked`), in factors only, or not."""
    forget_scale: Literal["relative", "sum"] = "relative"
    """L_forget relative to the size of weights and earlier changes, or as the plain sum."""
    forget_start: NonNegativeFloat = 0.0
    """The share of the steps after which L_forget begins."""

    def density_at(self, progress: float) -> float:
        """rho_s: falls from 1 to rho over the first half of the steps, as a cube (Zhu and Gupta, arXiv 1710.01878)."""
        return self.density + (1 - self.density) * max(0.0, 1 - 2 * progress) ** 3

    def begin(self, start: Start) -> StaminaLearner:
        return StaminaLearner(self, start)
