"""Fine-tuning of all weights, with and without the logits of earlier classes."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mnemon.classification.backbone import Backbone
from mnemon.classification.methods.base import WEIGHT, ClassifierMethod, Learner, Start
from mnemon.settings import PositiveFloat


class FullLearner(Learner):
    """All parameters of the backbone, where the task before left them."""

    def __init__(self, method: ClassifierMethod, start: Start) -> None:
        super().__init__()
        self.learning_rate = method.learning_rate
        own = dict(start.backbone.model.named_parameters())
        self.names = list(own)
        self.weights = nn.ParameterList(nn.Parameter(tensor.detach().clone()) for tensor in own.values())

    def current(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return dict(zip(self.names, self.weights, strict=True))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.weights), "lr": self.learning_rate}]

    def attached(self, backbone: Backbone) -> AbstractContextManager[object]:
        return backbone.replaced(self.current())

    def extra(self) -> dict[str, Tensor]:
        return {f"{WEIGHT}{name}": tensor.detach().cpu().clone() for name, tensor in self.current().items()}


@dataclass(frozen=True)
class FinetuneMasked(ClassifierMethod):
    """All weights of the backbone are trained, one task after another; the logits of earlier classes are left out of
    the loss. No protection beside that.
    """

    name: ClassVar[str] = "finetune++"
    source: ClassVar[str] = "FT++ of arXiv 2211.13218"
    trains: ClassVar[str] = "all weights of the backbone"
    stores: ClassVar[str] = "all weights of the backbone"

    learning_rate: PositiveFloat = 5e-5
    """Of Adam, in the first epoch; it falls along a cosine to 0.016 of that in the last."""

    def begin(self, start: Start) -> Learner:
        return FullLearner(self, start)


@dataclass(frozen=True)
class Finetune(FinetuneMasked):
    """All weights of the backbone and the whole head are trained, one task after another, with the logits of all
    classes so far in the loss: the head unlearns what has no images any more.
    """

    name: ClassVar[str] = "finetune"
    source: ClassVar[str] = "FT of arXiv 2211.13218"
    masks_earlier: ClassVar[bool] = False
