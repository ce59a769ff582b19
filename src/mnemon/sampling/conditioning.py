"""What the images of a batch are conditioned on: their prompts, and the prompts of regions within them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemon.models.base import Base
from mnemon.models.conditioning import Conditioning
from mnemon.sampling.regions import Region, region_masks


@dataclass(frozen=True)
class ConditioningBatch:
    """The conditioning of a batch of images, in rows like their latents.

    Attributes:
        prompts: for each image its prompt and those of its regions.
        image: the images' prompts, encoded.
        regions: for each region the same.
        masks: (rows, 1 + regions, side, side) weights of image and regions that sum to one; None without regions.
    """

    prompts: Sequence[Sequence[str]]
    image: Conditioning
    regions: Sequence[Conditioning] = ()
    masks: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> "ConditioningBatch":
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, image=self.image[rows], regions=[one[rows] for one in self.regions], masks=masks)

    def with_uncond(self, uncond: Conditioning) -> "ConditioningBatch":
        """Twice the rows for classifier-free guidance, the unconditional ones first; `uncond` is one row."""
        rows = torch.zeros(len(self.image), dtype=torch.long)
        image, *regions = (Conditioning.cat([uncond[rows], cond]) for cond in (self.image, *self.regions))
        masks = None if self.masks is None else self.masks.repeat(2, 1, 1, 1)
        return replace(self, image=image, regions=regions, masks=masks)

    def predict(self, base: Base, latents: Tensor, t: Tensor, adapted: Collection[str]) -> Tensor:
        """The base's prediction for latents (rows, channels, height, width) at one timestep (); `adapted` are the
        target modules with per-sample adapters."""
        timesteps = t.expand(len(latents))
        if self.masks is None:
            return base.predict(latents, timesteps, self.image)
        with base.regional_prompts(self.regions, self.masks, adapted):
            return base.predict(latents, timesteps, self.image)


class EncodedPrompts:
    """The prompts of many images and their regions, each distinct one encoded once.

    Args:
        regions: for each image its regions, as many for all of them.
        guidance_scale: taken as input by guidance-distilled bases, and by no others.
        batch_size: prompts encoded at once.

    Raises:
        MnemonError: a prompt names an unknown concept.
    """

    def __init__(
        self,
        base: Base,
        prompts: Sequence[str],
        regions: Sequence[Sequence[Region]] | None,
        guidance_scale: float,
        batch_size: int,
    ) -> None:
        self._base, self._regions = base, regions
        of_regions = [[region.prompt for region in own] for own in regions] if regions else [[] for _ in prompts]
        self._prompts = [[prompt, *within] for prompt, within in zip(prompts, of_regions, strict=True)]
        texts = list(dict.fromkeys([*prompts, *(text for within in of_regions for text in within)]))
        self._rows = {text: row for row, text in enumerate(texts)}
        starts = range(0, len(texts), batch_size)
        encoded = Conditioning.cat([base.encode_prompts(texts[start : start + batch_size]) for start in starts])
        self._encoded = encoded.with_guidance(guidance_scale) if base.distilled else encoded

    def batch(self, images: slice, feather: float) -> ConditioningBatch:
        """The conditioning of some of the images; `feather` as in `region_masks`."""
        prompts, base, masks = self._prompts[images], self._base, None
        rows = torch.tensor([[self._rows[text] for text in own] for own in prompts])  # (images, 1 + regions)
        image, *regions = (self._encoded[column] for column in rows.T)
        if self._regions:
            masks = torch.stack([region_masks(own, base.resolution, feather) for own in self._regions[images]])
            masks = masks.to(base.device)
        return ConditioningBatch(prompts, image, regions, masks)
