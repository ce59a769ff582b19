"""Orthogonal Adaptation (Po et al., CVPR 2024, arXiv 2312.02432): concepts are trained independently, and added up.

Not covered: changes of other layers than cross-attention keys and values, and normally distributed columns instead of
a shared basis (the paper's second, weaker way).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemon.adapters import Delta, Dense, LowRank, sum_deltas
from mnemon.errors import MnemonError
from mnemon.methods.base import Learner, Start, TrainedConcept
from mnemon.methods.ed_lora import EdLora, EdLoraLearner
from mnemon.models.base import Base
from mnemon.settings import NonNegativeInt, PositiveFloat


def shared_basis(width: int, seed: int) -> Tensor:
    """O (width, width) in fp64, orthogonal, uniformly distributed: the same, bit for bit, for the same seed."""
    normal = torch.randn(width, width, generator=_numbers(f"basis/{seed}/{width}"), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal().sign()  # QR alone prefers some orthogonal matrices (Mezzadri, arXiv math-ph/0609050)


def drawn_columns(width: int, rank: int, seed: int, name: str) -> Tensor:
    """Which `rank` columns of the basis the concept `name` has, independent of other concepts."""
    return torch.randperm(width, generator=_numbers(f"columns/{seed}/{width}/{name}"))[:rank]


def _numbers(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(sha256(purpose.encode()).digest()[:7]))


class FixedDown(LowRank):
    """A low-rank change of which `up` alone is trained."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__(up, down)
        self.up.requires_grad_(True)
        del self.down
        self.register_buffer("down", down, persistent=False)


class OrthogonalLearner(EdLoraLearner):
    """A_i of every target module, and V_rand V_class of every layer."""

    def __init__(self, method: "OrthogonalAdaptation", start: Start) -> None:
        layers = list(start.base.target_modules().values())
        widths = sorted({layer.in_features for layer in layers})
        slot = method.free_slot(widths[0], start.earlier) if method.disjoint else None
        self.slot = slot
        downs = {width: method.fixed_down(width, start.name, slot).to(start.base.device) for width in widths}
        ups = (torch.zeros(layer.out_features, method.rank, device=layer.weight.device) for layer in layers)
        factors = [FixedDown(up, downs[layer.in_features]) for up, layer in zip(ups, layers, strict=True)]
        super().__init__(method, start, factors)

    def facts(self) -> dict[str, Any]:
        return {} if self.slot is None else {"slot": self.slot}


@dataclass(frozen=True)
class OrthogonalAdaptation(EdLora):
    """ED-LoRA concepts whose `down` factors are fixed to columns of one orthogonal matrix, and added up:

        O in R^{D2 x D2}                   orthogonal, random from a seed, one for each width of inputs
        B_i in R^{D2 x r}                  r columns of O, random from the concept's name; never trained
        dW_i = A_i B_i^T                   A_i in R^{D1 x r}, trained, starts at zero
        W    = W_0 + lambda sum_i dW_i

    Where B_i^T B_j = 0, dW_j does nothing to inputs in the span of B_i: no crosstalk there, though no concept has seen
    another. Two random choices share r^2 / D2 columns on average; `disjoint` gives each concept columns that none of
    the library's has, as long as there are any.
    """

    name: ClassVar[str] = "orthogonal-adaptation"
    trains: ClassVar[str] = "the up factors of the cross-attention keys and values, and two token vectors a layer"
    stores: ClassVar[str] = "the factors and the token's vectors"
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2312.02432"

    merge_weight: PositiveFloat = 0.6
    """lambda, the weight of every concept's change in the sum."""
    basis_seed: NonNegativeInt = 0
    """Seed of O and of the choice of columns."""
    disjoint: bool = False
    """Give each concept the first r columns that are free, instead of random ones. Concepts that are to be used
    together have to be learned into one library then, one after another or in one run."""

    @property
    def independent(self) -> bool:
        return super().independent and not self.disjoint

    def begin(self, start: Start) -> OrthogonalLearner:
        return OrthogonalLearner(self, start)

    def begin_together(self, starts: Sequence[Start]) -> list[Learner]:
        learners, taken = list[Learner](), list(starts[0].earlier)
        for start in starts:
            learner = self.begin(replace(start, earlier=taken))
            learners.append(learner)
            taken.append(TrainedConcept(start.name, start.class_noun, {}, {}, learner.facts()))
        return learners

    def free_slot(self, width: int, earlier: Sequence[TrainedConcept]) -> int:
        """The first r columns that no other concept has, counted in steps of r."""
        slots, taken = width // self.rank, {one.facts.get("slot") for one in earlier}
        for slot in range(slots):
            if slot not in taken:
                return slot
        raise MnemonError(
            f"Disjoint columns of rank {self.rank} are enough for {slots} concepts on this base, which reads {width} "
            "numbers: use a lower rank, or disjoint=false."
        )

    def fixed_down(self, width: int, name: str, slot: int | None) -> Tensor:
        """B_i^T (rank, width)."""
        if self.rank > width:
            raise MnemonError(
                f"The setting 'rank' is {self.rank}; this base has layers that read only {width} numbers."
            )
        if slot is None:
            columns = drawn_columns(width, self.rank, self.basis_seed, name)
        else:
            columns = torch.arange(slot * self.rank, (slot + 1) * self.rank)
        return shared_basis(width, self.basis_seed)[:, columns].T.float().contiguous()

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        if self.disjoint:
            _check_disjoint(learned)
        total = sum_deltas([one.deltas for one in learned])
        return {target: Dense(self.merge_weight * delta.matrix()) for target, delta in total.items()}


def _check_disjoint(learned: Sequence[TrainedConcept]) -> None:
    owners = {one.facts.get("slot"): one.name for one in learned}
    for one in learned:
        other = owners[one.facts.get("slot")]
        if other != one.name:
            raise MnemonError(
                f"The concepts '{one.name}' and '{other}' have the same columns of the basis, so they were learned "
                "without knowing of each other: with disjoint=true, learn them into one library."
            )
