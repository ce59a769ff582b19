"""What prompt methods share: the backbone's weights stay, and what its attention reads beside the image is trained."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from mnemon.classification.backbone import Prefix
from mnemon.classification.methods.base import ClassifierMethod, Learner, TrainedTask
from mnemon.methods.parts import sample_uniform


class PromptLearner(Learner):
    """Named trainable tensors, stored under their names."""

    def __init__(self, learning_rate: float, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.learning_rate, self.names = learning_rate, list(tensors)
        self.tensors = nn.ParameterList(nn.Parameter(tensor.clone()) for tensor in tensors.values())

    def trained(self) -> dict[str, Tensor]:
        """The trainable tensors by name."""
        return dict(zip(self.names, self.tensors, strict=True))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.tensors), "lr": self.learning_rate}]

    def extra(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.trained().items()}


@dataclass(frozen=True)
class PromptMethod(ClassifierMethod, ABC):
    """Prompts, chosen by the features of an image in the frozen backbone."""

    merges: ClassVar[bool] = False
    uses_queries: ClassVar[bool] = True


def uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform in -1..1, as prompts and keys start."""
    return sample_uniform(shape, generator, device) * 2 - 1


def similarities(queries: Tensor, keys: Tensor) -> Tensor:
    """Cosines (images, keys) of queries (images, width) and keys (keys, width)."""
    return cosine_similarity(queries[:, None], keys[None], dim=-1)


def halves(prompts: Tensor) -> Prefix:
    """Prompts (images, length, width) as a prefix: the first half are keys, the last half values."""
    keys, values = prompts.chunk(2, dim=1)
    return keys, values


def stacked(learned: Sequence[TrainedTask], name: str, device: torch.device) -> Tensor:
    """The tensor `name` of all tasks, one after another along the first axis."""
    return torch.cat([task.extra[name] for task in learned]).to(device)
