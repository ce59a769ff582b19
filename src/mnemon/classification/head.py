"""The one linear head that grows with every task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mnemon.classification.methods.base import TrainedTask
from mnemon.methods.parts import sample_uniform

HeadTensors = Mapping[str, Tensor]


def head_of(learned: Sequence[TrainedTask], width: int) -> dict[str, Tensor]:
    """The head after `learned`: `weight` (classes, width) and `bias` (classes,), in the order in which classes came.
    Each task brings the rows of the last classes known after it; the newest counts."""
    weight, bias, known = torch.zeros(0, width), torch.zeros(0), 0
    for task in learned:
        known += len(task.classes)
        kept = known - len(task.head["bias"])
        weight = torch.cat([weight[:kept], task.head["weight"]])
        bias = torch.cat([bias[:kept], task.head["bias"]])
    return {"weight": weight, "bias": bias}


class GrowingHead(nn.Module):
    """Rows of the earlier classes, and new ones for those of the task; uniform within 1 / sqrt(width) at first.

    Args:
        earlier: the head before the task.
        trains_earlier: train the earlier rows too.
    """

    def __init__(
        self, earlier: HeadTensors, count: int, generator: torch.Generator, device: torch.device, trains_earlier: bool
    ) -> None:
        super().__init__()
        width = earlier["weight"].shape[1]
        bound = width**-0.5
        old = {
            name: nn.Parameter(rows.to(device).clone(), requires_grad=trains_earlier) for name, rows in earlier.items()
        }
        self.earlier = nn.ParameterDict(old)
        self.weight = nn.Parameter((sample_uniform((count, width), generator, device) * 2 - 1) * bound)
        self.bias = nn.Parameter((sample_uniform((count,), generator, device) * 2 - 1) * bound)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (images, classes) of all classes so far."""
        weight = torch.cat([self.earlier["weight"], self.weight])
        return linear(features, weight, torch.cat([self.earlier["bias"], self.bias]))

    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def own(self, features: Tensor) -> Tensor:
        """Logits (images, count) of the task's classes."""
        return linear(features, self.weight, self.bias)

    def stored(self) -> dict[str, Tensor]:
        """The trained rows, on the CPU."""
        rows = {"weight": self.weight, "bias": self.bias}
        if self.earlier["bias"].requires_grad:
            rows = {name: torch.cat([self.earlier[name], own]) for name, own in rows.items()}  # type: ignore[misc]
        return {name: tensor.detach().cpu().clone() for name, tensor in rows.items()}
