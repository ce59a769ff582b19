"""InfLoRA (Liang and Li, CVPR 2024, arXiv 2404.00228): changes kept off what earlier tasks' layers read.

Read from the released code: singular values are those of the covariance. What it stores as a span or as its complement,
whichever is smaller, is a span here; both describe the same projection.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.adapters import LowRank
from mnemon.classification.backbone import Backbone
from mnemon.classification.methods.adapters import Changed, LowRankLearner, LowRankMethod
from mnemon.classification.methods.base import Batch, Start
from mnemon.methods.orthogonal_adaptation import FixedDown
from mnemon.settings import PositiveFloat, PositiveInt, Share

SPAN = "span."


@torch.no_grad()
def covariances(backbone: Backbone, layers: dict[str, nn.Linear], batches: Iterator[Batch]) -> dict[str, Tensor]:
    """The mean of x x^T, (d_in, d_in), over the tokens that each layer reads."""
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def adding(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            totals[name] = totals.get(name, rows.new_zeros(())) + rows.T @ rows
            counts[name] = counts.get(name, 0) + len(rows)

        return hook

    handles = [layer.register_forward_pre_hook(adding(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            backbone.features(batch.images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / counts[name] for name, total in totals.items()}


def off_span(matrix: Tensor, span: Tensor) -> Tensor:
    """(I - M M^T) matrix, for a span M (d, k) of orthonormal columns."""
    return matrix - span @ (span.T @ matrix)


def extended_span(span: Tensor, covariance: Tensor, threshold: float) -> Tensor:
    """The span (d, k) with further directions, as few as explain the share `threshold` of the covariance's squared
    singular values together."""
    total = covariance.square().sum()
    vectors, values, _ = torch.linalg.svd(off_span(covariance, span))
    explained = 1 - values.square().sum() / total
    shares = explained + torch.cat([values.new_zeros(1), values.square().cumsum(0) / total])
    count = int((shares < threshold).sum())
    joined = torch.cat([span, vectors[:, : min(count, len(span) - span.shape[1])]], dim=1)
    return torch.linalg.qr(joined)[0] if count else span


class InfLoraLearner(LowRankLearner):
    """A_t of every target; B_t, fixed before the first step; the spans of earlier tasks, at the end with its own."""

    def __init__(self, method: "InfLora", start: Start) -> None:
        super().__init__(method, start)
        self.method, self.backbone, self.number = method, start.backbone, len(start.earlier)
        self.readers = start.backbone.projections("k")  # keys and values of a block read the same
        width, device = start.backbone.width, start.backbone.device
        past = start.earlier[-1].extra if start.earlier else {}
        self.spans = {name: past.get(SPAN + name, torch.zeros(width, 0)).to(device) for name in self.readers}

    def start_factors(self, method: LowRankMethod, start: Start) -> list[LowRank]:
        device = start.backbone.device
        return [
            FixedDown(
                torch.zeros(layer.out_features, method.rank, device=device),
                torch.zeros(method.rank, layer.in_features, device=device),
            )
            for layer in self.layers.values()
        ]

    def on_train_start(self, batches: Callable[[], Iterator[Batch]]) -> None:
        """B_t: the leading directions of what the layers read of the new images, off the earlier tasks' spans."""
        per_block = len(self.layers) // len(self.readers)
        for place, (name, covariance) in enumerate(covariances(self.backbone, self.readers, batches()).items()):
            vectors, _, _ = torch.linalg.svd(off_span(covariance, self.spans[name]))
            down = vectors[:, : self.method.rank].T / math.sqrt(3)
            for factor in self.factors[place * per_block : (place + 1) * per_block]:
                factor.down = down.contiguous()

    def on_train_end(self, batches: Callable[[], Iterator[Batch]], logits: Callable[[Batch], Tensor]) -> None:
        threshold = self.method.threshold_at(self.number)
        for name, covariance in covariances(self.backbone, self.readers, batches()).items():
            self.spans[name] = extended_span(self.spans[name], covariance, threshold)

    def extra(self) -> dict[str, Tensor]:
        return {SPAN + name: span.cpu().contiguous() for name, span in self.spans.items()}

    def facts(self) -> dict[str, Any]:
        return {"span": sum(span.shape[1] for span in self.spans.values()) / len(self.spans)}


@dataclass(frozen=True)
class InfLora(LowRankMethod):
    """Low-rank changes of keys and values whose `down` factor is fixed before the training, so that they act on what
    the new task's layers read and not on what those of earlier tasks did:

        C_t  = mean of x x^T                     x: tokens that the attention of a block reads of the task's images
        B_t  = top r left singular vectors of (I - M M^T) C_t, over sqrt 3            M: the span of earlier tasks
        W_t  = W_{t-1} + A_t B_t                 A_t alone is trained, from zero
        M    gains, after the task, the fewest directions with which it explains the share epsilon_t of C_t
        epsilon_t = lamb + (lame - lamb) t / N
    """

    name: ClassVar[str] = "inflora"
    source: ClassVar[str] = "arXiv 2404.00228"
    trains: ClassVar[str] = "the up factors of the keys and values of every block"
    stores: ClassVar[str] = "the factors and the spans of all tasks so far"

    rank: PositiveInt = 10
    """r, the rank of the factors; at most the width of the backbone."""
    targets: Changed = "kv"
    """Which projections are changed: queries, keys and values, keys and values, or queries and values."""
    learning_rate: PositiveFloat = 5e-4
    """Of Adam, in the first epoch; it falls along a cosine to 0.016 of that in the last."""
    lamb: Share = 0.98
    """The share of C_t that M explains after the first task."""
    lame: Share = 1.0
    """The share that it would explain after N tasks."""
    expected_tasks: PositiveInt = 10
    """N, the tasks to come in all; epsilon_t stays at `lame` after that."""

    def threshold_at(self, number: int) -> float:
        """epsilon_t of the task with this number, from 0."""
        return self.lamb + (self.lame - self.lamb) * min(1.0, number / self.expected_tasks)

    def begin(self, start: Start) -> InfLoraLearner:
        return InfLoraLearner(self, start)
