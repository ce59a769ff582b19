"""A small convolutional image encoder for the world.

One class, trained three times: as the teacher of the built-in base, as the judge that evaluates its images (from
another seed, on other renders), and as the image side of the world's small CLIP.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 192)
SCALE = ".scale"  # ends the names of the scales of packed weights


class ImageEncoder(nn.Module):
    """Images (batch, 3, 64, 64) in -1..1 to an embedding and to class logits.

    `heads` maps the name of an attribute to its number of classes; `embedding` is the width of the embedding.
    """

    def __init__(self, heads: dict[str, int], embedding: int = 128) -> None:
        super().__init__()
        self.embedding = embedding
        stages, before = [], 3
        for width in WIDTHS:
            stages.append(nn.Sequential(*_convolution(before, width, 2), *_convolution(width, width, 1)))
            before = width
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleDict({name: nn.Linear(before * 4, classes) for name, classes in heads.items()})
        self.project = nn.Sequential(nn.Linear(before * 4, 256), nn.GELU(), nn.Linear(256, embedding))

    def features(self, images: Tensor) -> list[Tensor]:
        """The four stages' outputs, (batch, width, side, side) with sides 32, 16, 8, 4."""
        outputs = []
        for stage in self.stages:
            images = stage(images)
            outputs.append(images)
        return outputs

    def pool(self, features: Tensor) -> Tensor:
        """The last stage's (batch, 192, 4, 4) to (batch, 768): 2 × 2 places are kept apart."""
        return nn.functional.adaptive_avg_pool2d(features, 2).flatten(1)

    def classify(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (batch, classes) for every attribute."""
        pooled = self.pool(self.features(images)[-1])
        return {name: head(pooled) for name, head in self.heads.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Unit embeddings (batch, embedding)."""
        return nn.functional.normalize(self.project(self.pool(self.features(images)[-1])).float(), dim=-1)


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as 8-bit whole numbers with a scale for each output, everything else in half precision: half the bytes
    of half precision, and embeddings that stay the same to a cosine of 0.9999."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            rows = value.flatten(1).float()
            scale = (rows.abs().amax(1) / 127).clamp(min=1e-8)
            tensors[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            tensors[f"{name}{SCALE}"] = scale
        else:
            tensors[name] = value.half() if value.is_floating_point() else value
    return tensors


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `packed`, in single precision; other tensors stay as they are."""
    state = {name: value for name, value in tensors.items() if not name.endswith(SCALE)}
    for name in (name for name in state if f"{name}{SCALE}" in tensors):
        scale = tensors[f"{name}{SCALE}"]
        state[name] = state[name].float() * scale.view(-1, *[1] * (state[name].ndim - 1))
    return state


def _convolution(before: int, after: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.GELU()


def contrastive_loss(left: Tensor, right: Tensor, scale: Tensor | float = 20.0) -> Tensor:
    """Symmetric InfoNCE: row i of `left` (n, d) belongs to row i of `right`; both of unit length."""
    logits = left @ right.T * scale
    target = torch.arange(len(left), device=left.device)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
