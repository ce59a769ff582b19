"""Per-region generation: each region is sampled as an image of its own, the images are put together as a collage, and
the collage goes through the last steps with regional prompts (SDEdit: Meng et al., arXiv 2108.01073).

A base that was mostly trained on single centred objects generates one centred object, whatever its regional prompts
say. As an image of its own each object is what such a base does best; the last steps give all of them one light, one
ground and no seams.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mnemon.sampling.regions import Region, region_masks
from mnemon.sampling.sampler import DEFAULTS, OnStep, Sampler, SamplingSettings

STRENGTH = 0.2
"""The share of the steps taken from the collage. With more, a base of that kind generates one object again."""
LARGER = 1.5
"""How much larger than its region's shorter side an image may stand: a centred object fills about two thirds of it."""
SEED_STRIDE = 1_000_003  # from the seed of one region's image to that of the next


def sample_per_region(
    sampler: Sampler,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings = DEFAULTS,
    *,
    regions: Sequence[Sequence[Region]],
    feather: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """As `sample` with regions, by a collage of one image for each region, and one for what the regions leave.

    The work is that of these plain images and 0.2 of one more, which `on_step` does not count.
    """
    uncovered = any(bool((1 - region_masks(own, 64)[1:].sum(0)).max() > 1e-3) for own in regions)
    texts = [
        [*([prompt] if uncovered else []), *(region.prompt for region in own)]
        for prompt, own in zip(prompts, regions, strict=True)
    ]
    canvas_seeds = [seed + SEED_STRIDE * i for seed, own in zip(seeds, texts, strict=True) for i in range(len(own))]
    canvases = sampler([text for own in texts for text in own], canvas_seeds, settings, on_step=on_step)
    parts = canvases.split([len(own) for own in texts])
    collages = torch.stack([collage(part, own, feather) for part, own in zip(parts, regions, strict=True)])
    return sampler(prompts, seeds, settings, regions=regions, feather=feather, init_images=collages, strength=STRENGTH)


def collage(canvases: Tensor, regions: Sequence[Region], feather: float = 0.0) -> Tensor:
    """One image (3, side, side) of canvases (regions, 3, side, side), each scaled down into its region. An extra
    canvas before the others fills what the regions leave."""
    side = canvases.shape[-1]
    masks = region_masks(regions, side, feather)
    pasted = [_pasted(canvas, region) for canvas, region in zip(canvases[-len(regions) :], regions, strict=True)]
    image = (masks[1:, None] * torch.stack(pasted)).sum(0)
    return image + masks[0] * canvases[0] if len(canvases) > len(regions) else image


def _pasted(canvas: Tensor, region: Region) -> Tensor:
    """A canvas (3, side, side) in the middle of the region's bounding box, scaled down to fit into it, or in a long box
    to `LARGER` times its shorter side. Around it, its edge is replicated."""
    side = canvas.shape[-1]
    covered = region.coverage(side) >= 0.5
    top, height = _extent(covered.any(1))
    left, width = _extent(covered.any(0))
    small = min(round(LARGER * min(height, width)), max(height, width))
    scaled = interpolate(canvas[None], (small, small), mode="bicubic", antialias=True).clamp(0, 1)
    above, before = top + (height - small) // 2, left + (width - small) // 2
    return pad(scaled, (before, side - before - small, above, side - above - small), mode="replicate")[0]


def _extent(covered: Tensor) -> tuple[int, int]:
    """The first covered cell, and the number of cells from there to the last; at least one."""
    cells = covered.nonzero().flatten().tolist() or [0]
    return cells[0], cells[-1] - cells[0] + 1
