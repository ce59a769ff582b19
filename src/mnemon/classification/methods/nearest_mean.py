"""The nearest class mean in the frozen backbone: nothing is trained."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mnemon.classification.methods.base import Batch, ClassifierMethod, Learner, Start


class NearestMeanLearner(Learner):
    """The mean feature of every class."""

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.backbone, self.count = start.backbone, len(start.classes)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return []

    @torch.no_grad()
    def on_train_end(self, batches: Callable[[], Iterator[Batch]], logits: Callable[[Batch], Tensor]) -> None:
        total = torch.zeros(self.count, self.backbone.width, device=self.backbone.device)
        images = total.new_zeros(self.count)
        for batch in batches():
            total.index_add_(0, batch.labels, self.backbone.features(batch.images))
            images.index_add_(0, batch.labels, images.new_ones(len(batch.labels)))
        self.means = total / images[:, None]

    def head(self) -> dict[str, Tensor]:
        means = self.means.cpu()
        return {"weight": 2 * means, "bias": -means.square().sum(1)}


@dataclass(frozen=True)
class NearestMean(ClassifierMethod):
    """The class whose mean feature mu_c in the frozen backbone is nearest, as a linear head:

        argmin_c || f - mu_c ||^2 = argmax_c (2 mu_c f - || mu_c ||^2)

    Nothing is trained and nothing forgotten: the baseline that every trained method has to pass.
    """

    name: ClassVar[str] = "nearest-mean"
    source: ClassVar[str] = "nearest class mean, as in arXiv 1611.07725, on frozen features without exemplars"
    trains: ClassVar[str] = "nothing"
    stores: ClassVar[str] = "nothing"
    trains_head: ClassVar[bool] = False

    def begin(self, start: Start) -> NearestMeanLearner:
        return NearestMeanLearner(start)
