"""Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796) of all weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnemon.classification.methods.base import Batch, Start
from mnemon.classification.methods.finetune import FinetuneMasked, FullLearner
from mnemon.settings import NonNegativeFloat, PositiveInt

FISHER = "fisher."


class EwcLearner(FullLearner):
    """All weights theta, where theta_{t-1} lies, and F_1 + ... + F_{t-1}; at the end with F_t."""

    def __init__(self, method: "Ewc", start: Start) -> None:
        super().__init__(method, start)
        self.method = method
        self.anchor = [weight.detach().clone() for weight in self.weights]
        past = start.earlier[-1].extra if start.earlier else {}
        device = start.backbone.device
        self.fisher = [past[FISHER + name].to(device) for name in self.names] if past else []

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """lambda sum F (theta - theta_{t-1})^2."""
        triples = zip(self.fisher, self.weights, self.anchor, strict=False)  # no F before the second task
        terms = [(fisher * (now - before).square()).sum() for fisher, now, before in triples]
        return self.method.forget_weight * torch.stack(terms).sum() if terms else features.new_zeros(())

    def on_train_end(self, batches: Callable[[], Iterator[Batch]], logits: Callable[[Batch], Tensor]) -> None:
        """Add F_t: the mean of the squared gradients of single images."""
        totals, count = [torch.zeros_like(weight) for weight in self.weights], 0
        for batch in batches():
            for row in range(len(batch.labels)):
                if count == self.method.fisher_images:
                    break
                one = Batch(batch.images[row : row + 1], batch.labels[row : row + 1], None)
                loss = cross_entropy(logits(one), one.labels)
                gradients = torch.autograd.grad(loss, list(self.weights), allow_unused=True)
                for total, gradient in zip(totals, gradients, strict=True):
                    if gradient is not None:
                        total += gradient.square()
                count += 1
        own = [total / count for total in totals]
        self.fisher = [past + new for past, new in zip(self.fisher, own, strict=True)] if self.fisher else own

    def extra(self) -> dict[str, Tensor]:
        fisher = {FISHER + name: total.cpu() for name, total in zip(self.names, self.fisher, strict=True)}
        return super().extra() | fisher


@dataclass(frozen=True)
class Ewc(FinetuneMasked):
    """`finetune++` with every weight held in proportion to the sensitivity of earlier tasks' losses to it:

    L   = CE + lambda sum (F_1 + ... + F_{t-1}) (.) (theta - theta_{t-1})^2
    F_t = E (d CE / d theta)^2 at theta_t          gradients of single images, squared, then averaged
    """

    name: ClassVar[str] = "ewc"
    source: ClassVar[str] = "arXiv 1612.00796"
    stores: ClassVar[str] = "all weights of the backbone and the sum of their importances"

    forget_weight: NonNegativeFloat = 100.0
    """lambda."""
    fisher_images: PositiveInt = 200
    """Images of a task over which F_t is averaged, at most."""

    def begin(self, start: Start) -> EwcLearner:
        return EwcLearner(self, start)
