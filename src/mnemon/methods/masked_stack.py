"""Low-rank changes under learned masks, of many layers at once: what STAMINA trains, whatever the model.

Settings are those of `MaskSettings`; equations stand at `mnemon.methods.stamina.Stamina`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mnemon.adapters import Delta, Dense, LowRank, MaskedLowRank, Product, zeros
from mnemon.methods import masks, parts
from mnemon.methods.masks import MaskKind, MaskLogits, MaskParam
from mnemon.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Share

LARGE = 2**24
"""Entries of target modules of one shape from which their changes are not formed as dense matrices in training, and
earlier changes are kept in bf16."""


@dataclass(frozen=True)
class MaskSettings:
    """The settings of masked low-rank changes."""

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
    mask_unit: Literal["entry", "row", "column"] = "column"
    """A gate for each entry of a weight, each row, or each column: one feature that the layer reads, in
    diffusion one of the text."""
    sparsity: Literal["density", "penalty"] = "density"
    """Hold the masks at the density rho, or let L_sparse close gates."""
    forget: Literal["masked", "factors", "none"] = "masked"
    """Regularise what earlier concepts use, in factors and masks (`masked`), in factors only, or not."""
    forget_scale: Literal["relative", "sum"] = "relative"
    """L_forget relative to the size of weights and earlier changes, or as the plain sum."""

    def density_at(self, progress: float) -> float:
        """rho_s: falls from 1 to rho over the first half of the steps, as a cube (Zhu and Gupta, arXiv 1710.01878)."""
        return self.density + (1 - self.density) * max(0.0, 1 - 2 * progress) ** 3


class MaskedStack(nn.Module):
    """The n target modules whose weights have one shape (D1, D2), computed together: every tensor has n in front."""

    past: Tensor

    def __init__(
        self,
        method: "MaskSettings",
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
        leaves_rank = method.mask == "none" or method.mask_unit == "column"
        # Whether Delta_t stays in factors: where dense matrices would fill a GPU, and the mask leaves the rank.
        self.factored = leaves_rank and len(ups) * shape[1] * shape[2] >= LARGE
        kept = torch.bfloat16 if self.factored else torch.float32
        before = torch.zeros(shape, device=self.a.device, dtype=kept)  # P_{t-1} (n, D1, D2)
        for index, target in enumerate(self.target_modules):
            if target in past:
                before[index] = past[target].matrix()
        self.register_buffer("past", before, persistent=False)

    def before_step(self, generator: torch.Generator, density: float) -> None:
        """Delta_t of this step, kept for the forward pass and for L_forget."""
        method = self.method
        if method.mask == "none":
            self.mask = self.a.new_ones(())
        elif self.training:
            noisy = masks.training_logits(self.logits(), method.mask, generator)
            if self.held:
                noisy = noisy - masks.sampled_quantile(noisy.detach(), 1 - density, generator)
            self.noisy = noisy  # S_t
            self.mask = masks.training_mask(self.noisy, method.mask, method.tau)  # M_t
        else:
            self.mask = self.final_mask(density)
        if self.factored:
            self.masked_b = self.b * self.mask
        else:
            self.product = torch.bmm(self.a, self.b)  # A_t B_t
            self.delta = self.product * self.mask  # Delta_t = (A_t B_t) (.) M_t

    def new_deltas(self) -> dict[str, Delta]:
        """For `assign`, by target module."""
        if self.factored:
            zero = [(torch.zeros_like(a), torch.zeros_like(b)) for a, b in zip(self.a.data, self.b.data, strict=True)]
            return {target: Product(*pair) for target, pair in zip(self.target_modules, zero, strict=True)}
        rows, columns = self.past.shape[1:]
        return {target: zeros((rows, columns), self.a.device) for target in self.target_modules}

    def assign(self, deltas: Mapping[str, Any]) -> None:
        """Put Delta_t of this step into the target modules' `deltas`."""
        own = [deltas[target] for target in self.target_modules]
        if self.factored:
            for delta, up, down in zip(own, self.a, self.masked_b, strict=True):
                delta.up, delta.down = up, down  # A_t (B_t (.) M_t)
        else:
            for delta, values in zip(own, self.delta.unbind(0), strict=True):
                delta.values = values

    @property
    def held(self) -> bool:
        return self.method.sparsity == "density"

    def forgetting(self) -> Tensor:
        mask = self.mask if self.method.forget == "masked" else self.mask.detach()
        if self.factored:  # matrix after matrix, each computed again in the backward pass
            pairs = zip(self.past, self.a, self.b * mask, strict=True)
            return torch.stack([checkpoint(_overlap, *one, use_reentrant=False) for one in pairs]).sum()
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


def _overlap(past: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """|| P_{t-1} (.) A B ||_F^2"""
    return (past * (a @ b)).square().sum()


class MaskedStacks(nn.ModuleList):
    """The trainable masked changes of all `layers`, stacked by shape, on top of the `past` ones P_{t-1}."""

    def __init__(
        self,
        method: MaskSettings,
        layers: Mapping[str, nn.Linear],
        past: Mapping[str, Dense],
        generator: torch.Generator,
    ) -> None:
        groups: dict[tuple[int, int], dict[str, tuple[Tensor, Tensor]]] = {}
        for target, layer in layers.items():
            factors = parts.init_factors(layer, method.rank, generator)
            groups.setdefault((layer.out_features, layer.in_features), {})[target] = factors
        super().__init__(MaskedStack(method, factors, past, generator) for factors in groups.values())
        self.method = method
        new = {target: delta for stack in self.stacks() for target, delta in stack.new_deltas().items()}
        self.deltas = {target: new[target] for target in layers}
        moved = {target: delta.matrix() for target, delta in past.items() if target in layers}
        self.scale = parts.relative_scale(moved, layers) if method.forget_scale == "relative" else 1.0

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser groups: factors, and masks if there are any."""
        factors = [factor for stack in self.stacks() for factor in (stack.a, stack.b)]
        groups: list[dict[str, Any]] = [{"params": factors, "lr": self.method.learning_rate}]
        if self.method.mask != "none":
            gates = [parameter for stack in self.stacks() for parameter in stack.logits.parameters()]
            groups.append({"params": gates, "lr": self.method.mask_lr})
        return groups

    def before_step(self, generator: torch.Generator, progress: float) -> None:
        """Delta_t of this step into `deltas`; `progress` is the share of the run's steps that are done."""
        density = self.method.density_at(progress)
        for stack in self.stacks():
            stack.before_step(generator, density)
            stack.assign(self.deltas)  # W_t = W_{t-1} + Delta_t

    def forgetting(self) -> Tensor:
        """L_forget, a scalar in fp32."""
        stacks = self.stacks()
        return self.scale * sum((stack.forgetting() for stack in stacks), stacks[0].a.new_zeros(()))

    def sparsity(self) -> Tensor:
        """lambda_s L_sparse; zero unless `sparsity` is `penalty`."""
        method, stacks = self.method, self.stacks()
        if method.sparsity != "penalty" or not method.sparsity_weight or method.mask == "none":
            return stacks[0].a.new_zeros(())
        gates = [stack.gates() for stack in stacks]
        mean = torch.stack([gate.sum() for gate in gates]).sum() / sum(gate.numel() for gate in gates)
        return method.sparsity_weight * mean

    def stored(self) -> dict[str, Delta]:
        """The deltas to store, in the order of the layers."""
        stored = {target: delta for stack in self.stacks() for target, delta in stack.stored().items()}
        return {target: stored[target] for target in self.deltas}

    @torch.no_grad()
    def facts(self) -> dict[str, Any]:
        """The density of the final masks."""
        if self.method.mask == "none":
            return {}
        final = [stack.final_mask(self.method.density) for stack in self.stacks()]
        return {"mask_density": sum(float(m.sum()) for m in final) / sum(m.numel() for m in final)}

    def stacks(self) -> list[MaskedStack]:
        return list(self)  # type: ignore[arg-type]
