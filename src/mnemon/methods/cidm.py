"""CIDM, Concept-Incremental Diffusion Model (Dong et al., NeurIPS 2024, arXiv 2410.17594).

From the paper; the authors' code (JiahuaDong/CIFC) was read where the paper leaves things open, and differs from it in
aggregation, in R1 and in leaving R2 out. Not covered: synthesis by regions, style transfer and editing; changes of
queries and outputs, the attention regulariser, and what else `ed_lora` leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mnemon.methods.aggregation import ENCODING, Elastic, encode_alone
from mnemon.methods.base import Start, Step, TrainedConcept
from mnemon.methods.ed_lora import EdLoraLearner
from mnemon.methods.overlap import mean_overlap, stacked_ups
from mnemon.settings import NonNegativeFloat


class CommonSubspace(nn.Module):
    """W_* (D1, D2) and H_i (D1, D1) of one target module, so that H_i W_* is near every change dW_i, the new one last:

        R2 = sum_{i<=g} || dW_i - H_i W_* ||_F^2

    W_* starts as the mean of the earlier changes and every H_i as the identity.
    """

    shared: Tensor
    projections: Tensor
    past: Tensor

    def __init__(self, past: Tensor) -> None:
        """`past`: dW_i of the earlier concepts, (g - 1, D1, D2)."""
        super().__init__()
        identity = torch.eye(past.shape[1], device=past.device)
        self.register_buffer("shared", past.mean(0))
        self.register_buffer("projections", identity.repeat(len(past) + 1, 1, 1))
        self.register_buffer("past", past, persistent=False)

    def distance(self, change: Tensor) -> Tensor:
        """The new concept's term of R2 for dW_g (D1, D2); the others do not depend on it."""
        return (change - self.projections[-1] @ self.shared).square().sum()

    def total(self, change: Tensor) -> Tensor:
        """R2."""
        return self._errors(change).square().sum()

    @torch.no_grad()
    def step(self, change: Tensor, learning_rate: float) -> None:
        """One step of gradient descent on R2 in W_* and all H_i. (The paper prints a plus, which ascends.)"""
        errors = self._errors(change)
        by_projections = -2 * errors @ self.shared.T
        by_shared = -2 * (self.projections.mT @ errors).sum(0)
        self.projections -= learning_rate * by_projections
        self.shared -= learning_rate * by_shared

    def _errors(self, change: Tensor) -> Tensor:
        return torch.cat([self.past, change[None]]) - self.projections @ self.shared  # (g, D1, D2)


def common_subspaces(
    learned: Sequence[TrainedConcept], target_modules: Sequence[str], device: torch.device
) -> nn.ModuleList:
    """One for each target module, in their order."""
    pasts = (torch.stack([one.deltas[target].matrix().detach() for one in learned]) for target in target_modules)
    return nn.ModuleList(CommonSubspace(past.to(device)) for past in pasts)


class CidmLearner(EdLoraLearner):
    """dW_g = A_g B_g of every target module and the layer-wise token; A_i of the earlier concepts; H_i and W_* if R2
    counts."""

    def __init__(self, method: "Cidm", start: Start) -> None:
        super().__init__(method, start)
        self.method, self.base = method, start.base
        earlier, device = start.earlier, start.base.device
        self.past = {
            target: stacked_ups(earlier, target).to(device) for target in self.target_modules if earlier
        }  # A_i
        shared = bool(earlier) and method.shared_weight > 0
        self.subspaces = common_subspaces(earlier, self.target_modules, device) if shared else nn.ModuleList()

    def regularization_loss(self, step: Step | None = None) -> Tensor:
        """Zero for the first concept."""
        total = torch.zeros(())
        if self.past:
            total = self.method.specific_weight * self.specific()  # gamma_1 R1
        for subspace, delta in self._common():
            total = total + self.method.shared_weight * subspace.distance(delta)  # gamma_2 || dW_g - H_g W_* ||_F^2
        return total

    def specific(self) -> Tensor:
        ups = {target: delta.up for target, delta in self.deltas().items()}
        total = mean_overlap(ups, self.past, "absolute").mean()  # R1
        if self.method.ones:
            total = total + torch.stack([(up - 1).square().mean() for up in ups.values()]).mean()
        return total

    def after_step(self, progress: float) -> None:
        """The second half of a step: tokens and dW_g are held, H_i and W_* descend on R2."""
        for subspace, delta in self._common():
            subspace.step(delta.detach(), self.method.learning_rate)

    def extra(self) -> dict[str, Tensor]:
        return {ENCODING: encode_alone(self.base, self.name, self.tokens())}

    def _common(self) -> list[tuple[CommonSubspace, Tensor]]:
        """Each target module's subspace and dW_g, if R2 counts."""
        if not len(self.subspaces):
            return []
        changes = [delta.matrix() for delta in self.deltas().values()]
        return list(zip(self.subspaces, changes, strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cidm(Elastic):
    """Layer-wise tokens and factors for each concept, decorrelated in training, weighted by the prompt in sampling.

    For concept g, earlier concepts i < g and the target modules l with dW_i^l = A_i^l B_i^l:

        R1 = mean over i < g, l and entries of | A_i^l (A_g^l)^T |              task-specific knowledge
        R2 = sum_{i<=g} sum_l || dW_i^l - H_i^l W_*^l ||_F^2                    task-shared knowledge
        L  = L_diffusion + gamma_1 R1 + gamma_2 R2

    Each concept is trained on the bare base. In every step, tokens and dW_g follow L first, then H_i and W_* descend on
    R2 with the learning rate of the factors as step size. A prompt's weights are those of elastic weight aggregation,
    in `aggregation.Elastic`; they need no training.
    """

    name: ClassVar[str] = "cidm"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values, and a token for each layer"
    stores: ClassVar[str] = "the factors, the token's vectors for each layer and their encoding"
    source: ClassVar[str] = "arXiv 2410.17594"

    specific_weight: NonNegativeFloat = 0.1
    """gamma_1, for the mean over earlier concepts, target modules and entries."""
    shared_weight: NonNegativeFloat = 0.0
    """gamma_2, for the sum over concepts, target modules and entries. The paper has 1; the published code omits R2."""

    # Ablation switch
    ones: bool = False
    """Add to R1 the mean of (A_g - 1)^2, as the published code does; the paper has no such term."""

    def begin(self, start: Start) -> CidmLearner:
        return CidmLearner(self, start)
