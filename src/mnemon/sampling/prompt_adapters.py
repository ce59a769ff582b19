"""Adapters that depend on the prompt: images of one batch, each denoised under the adapters of its own prompt."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mnemon.adapters import Delta, PerSampleAdapters
from mnemon.models.base import Base
from mnemon.sampling.conditioning import ConditioningBatch

AdapterSet = Mapping[str, Delta]
"""Changes of the weights by target module."""
AdapterSets = Callable[[str], Sequence[AdapterSet]]
"""The adapter sets of a prompt; at least one, which may be empty."""


def no_adapters(prompt: str) -> list[AdapterSet]:
    """For every prompt the base's own weights."""
    return [{}]


class PromptAdapters:
    """Within the block each row of a batch passes the adapters of its prompt, and in a region those of the region's.

    An image whose prompt has several adapter sets takes a row for each; its prediction is their mean (LoRA Composite,
    Zhong et al., arXiv 2402.16843).

    Args:
        prompts: for each image its prompt and those of its regions.
    """

    def __init__(self, base: Base, prompts: Sequence[Sequence[str]], adapter_sets: AdapterSets) -> None:
        self._base = base
        self._sets: list[AdapterSet] = []
        numbers: dict[str, range] = {}  # of each prompt's sets
        for text in dict.fromkeys(text for own in prompts for text in own):
            first = len(self._sets)
            self._sets += adapter_sets(text)
            numbers[text] = range(first, len(self._sets))
        self._adapted = {target for own in self._sets for target in own}
        rows = [
            (image, [number, *(numbers[region][0] for region in regions)])
            for image, (prompt, *regions) in enumerate(prompts)
            for number in numbers[prompt]
        ]
        self._image = torch.tensor([image for image, _ in rows])  # (rows,)
        self._number = torch.tensor([number for _, own in rows for number in own])  # (rows · (1 + regions),)
        self._weight = 1 / self._image.bincount().float()  # (images,)

    def __enter__(self) -> "PromptAdapters":
        self._adapters = PerSampleAdapters(self._base.target_modules(), self._sets)
        return self

    def __exit__(self, *_: object) -> None:
        self._adapters.remove()

    def predict(self, conditioning: ConditioningBatch, latents: Tensor, t: Tensor) -> Tensor:
        """The predictions for latents (k · images, channels, height, width), every image k times."""
        images = len(self._weight)
        repeats = len(latents) // images
        self._adapters.set_adapter_index(self._number.repeat(repeats))
        if len(self._image) == images:
            return conditioning.predict(self._base, latents, t, self._adapted)
        rows = torch.cat([self._image + images * repeat for repeat in range(repeats)]).to(latents.device)
        predictions = conditioning[rows].predict(self._base, latents[rows], t, self._adapted)
        total = torch.zeros_like(latents).index_add_(0, rows, predictions)
        return total * self._weight.to(latents).repeat(repeats)[:, None, None, None]
