"""Learning without Forgetting (Li and Hoiem, arXiv 1606.09282)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, linear, log_softmax

from mnemon.classification.backbone import Backbone
from mnemon.classification.head import head_of
from mnemon.classification.methods.base import Batch, Start
from mnemon.classification.methods.finetune import FinetuneMasked, FullLearner
from mnemon.settings import NonNegativeFloat, PositiveFloat


class LwfLearner(FullLearner):
    """All weights, and the model before the task as the teacher."""

    def __init__(self, method: "Lwf", start: Start) -> None:
        super().__init__(method, start)
        self.method, self.backbone = method, start.backbone
        self.before = {
            name: nn.Parameter(weight.detach().clone(), requires_grad=False) for name, weight in self.current().items()
        }
        self.teacher_head = {
            name: rows.to(start.backbone.device) for name, rows in head_of(start.earlier, start.backbone.width).items()
        }

    def penalty(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """lambda T^2 KL(teacher || student) of the earlier classes' logits at temperature T, mean over images."""
        known = len(self.teacher_head["bias"])
        if not known:
            return features.new_zeros(())
        teacher = self._teacher(self.backbone, batch.images)
        heat = self.method.temperature
        student = log_softmax(logits[:, :known] / heat, dim=1)
        target = log_softmax(teacher / heat, dim=1)
        distance = kl_div(student, target, reduction="batchmean", log_target=True)
        return self.method.distil_weight * heat**2 * distance

    @torch.no_grad()
    def _teacher(self, backbone: Backbone, images: Tensor) -> Tensor:
        with backbone.replaced(self.before):
            return linear(backbone.features(images), self.teacher_head["weight"], self.teacher_head["bias"])


@dataclass(frozen=True)
class Lwf(FinetuneMasked):
    """`finetune++` with the logits of earlier classes on the new images held where the model before the task had them:

        L = CE + lambda T^2 KL(softmax(z_{t-1} / T) || softmax(z_t / T))          z: logits of the earlier classes

    No earlier image is needed: the teacher's answers on the new images stand in for them. The earlier rows of the head
    stay as they are.
    """

    name: ClassVar[str] = "lwf"
    source: ClassVar[str] = "arXiv 1606.09282"

    distil_weight: NonNegativeFloat = 1.0
    """lambda."""
    temperature: PositiveFloat = 2.0
    """T."""

    def begin(self, start: Start) -> LwfLearner:
        return LwfLearner(self, start)
