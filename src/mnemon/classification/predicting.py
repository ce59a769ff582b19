"""Predictions of what was learned, and the frozen features that prompt methods choose by."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear

from mnemon.classification.backbone import Backbone
from mnemon.classification.head import head_of
from mnemon.classification.methods.base import ClassifierMethod, TrainedTask
from mnemon.classification.training import normalised_for
from mnemon.classification.views import chunks, test_view
from mnemon.errors import MnemonError

BATCH = 32


class Classifier:
    """A backbone with some tasks learned in it; made by `opened`.

    Attributes:
        classes: in the order of the logits.
    """

    def __init__(self, backbone: Backbone, method: ClassifierMethod, learned: Sequence[TrainedTask]) -> None:
        self.backbone, self.method = backbone, method
        self.classes = [label for task in learned for label in task.classes]
        self.head = {name: rows.to(backbone.device) for name, rows in head_of(learned, backbone.width).items()}
        self._features = method.features(backbone, learned)

    @classmethod
    @contextmanager
    def opened(
        cls, backbone: Backbone, method: ClassifierMethod, learned: Sequence[TrainedTask]
    ) -> "Iterator[Classifier]":
        """Within the block the tasks' changes are merged into the backbone.

        Raises:
            MnemonError: nothing was learned yet.
        """
        if not learned:
            raise MnemonError("No classes were learned yet: learn some with `mnemon classify learn FOLDER`.")
        with method.merged(backbone, learned):
            yield cls(backbone, method, learned)

    @torch.no_grad()
    def logits(self, images: Tensor, queries: Tensor | None = None) -> Tensor:
        """Logits (images, classes) of normalised images (images, 3, side, side). None depends on the other images.

        Args:
            queries: (images, width), where they were computed before.
        """
        if self.method.uses_queries and queries is None:
            queries = self.backbone.features(images)
        return linear(self._features(images, queries), self.head["weight"], self.head["bias"])

    def predict(self, images: Sequence[Image.Image], queries: Tensor | None = None, batch_size: int = BATCH) -> Tensor:
        """Logits (images, classes) of upright RGB images, on the CPU."""
        rows = [self.logits(part, given) for part, given in prepared(self, images, queries, batch_size)]
        return torch.cat(rows).cpu() if rows else torch.zeros(0, len(self.classes))


def prepared(
    classifier: Classifier, images: Sequence[Image.Image], queries: Tensor | None, batch_size: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of images as the backbone sees them, and their queries."""
    backbone, method = classifier.backbone, classifier.method
    for rows in chunks(range(len(images)), batch_size):
        views = [test_view(images[row], backbone.image_size) for row in rows]
        given = None if queries is None else queries[list(rows)].to(backbone.device)
        yield normalised_for(method, backbone, views), given


@torch.no_grad()
def frozen_features(backbone: Backbone, method: ClassifierMethod, images: Sequence[Image.Image]) -> Tensor:
    """Features (images, width) in the frozen backbone, on the CPU: computed once, they serve every revision."""
    parts = ([test_view(image, backbone.image_size) for image in part] for part in chunks(images, BATCH))
    done = [backbone.features(normalised_for(method, backbone, part)).cpu() for part in parts]
    return torch.cat(done) if done else torch.zeros(0, backbone.width)
