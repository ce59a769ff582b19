"""Images whose regions are drawn apart first: each on a canvas of its own, put together, and drawn over as one.

A base that has mostly seen one thing in the middle draws one thing in the middle, of whatever its places hear: regions
by attention alone then give one thing made of several. On a canvas of its own each thing is what the base draws best.
The collage is noised and only the last steps are taken from there (SDEdit: Meng et al., arXiv 2108.01073), every region
hearing its own prompt, so that light, ground and seams become those of one image.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mnemon.sampling.regions import Region, shares

REDRAWN = 0.2
"""The share of the steps in which the collage is drawn over. With more, a base of that kind makes one thing again."""
LARGER = 1.5
"""How much larger than its region is wide a canvas may be: a thing in the middle takes about two thirds of one."""
NEXT_SEED = 1_000_003  # from the seed of one canvas of an image to that of the next


def draw_apart(
    sample: Callable[..., Tensor],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    regions: Sequence[Sequence[Region]],
    feather: float = 0.0,
    **options: Any,
) -> Tensor:
    """As `sample`, which is `Composed.sample` or `mnemon.sampling.sample` with its base, and takes the same `options`.

    The work is a plain image for each region and for what regions leave of the image, and 0.2 of one at the end,
    which `on_step` does not count.
    """
    rest = any(bool((1 - shares(own, 64)[1:].sum(0)).max() > 1e-3) for own in regions)
    told = [
        [*([prompt] if rest else []), *(region.prompt for region in own)]
        for prompt, own in zip(prompts, regions, strict=True)
    ]
    own_seeds = [seed + NEXT_SEED * index for seed, own in zip(seeds, told, strict=True) for index in range(len(own))]
    canvases = sample([text for own in told for text in own], seeds=own_seeds, **options)
    parts = canvases.split([len(own) for own in told])
    collages = torch.stack([collage(part, own, feather) for part, own in zip(parts, regions, strict=True)])
    options |= {"on_step": None, "start": collages, "redrawn": REDRAWN}
    return sample(prompts, seeds=seeds, regions=regions, feather=feather, **options)


def collage(canvases: Tensor, regions: Sequence[Region], feather: float = 0.0) -> Tensor:
    """One image (3, side, side) of canvases (regions, 3, side, side), each made smaller to stand in its region. A
    canvas more, before the others, shows what regions leave."""
    side = canvases.shape[-1]
    weights = shares(regions, side, feather)
    inside = canvases[-len(regions) :]
    placed = torch.stack([_placed(canvas, region) for canvas, region in zip(inside, regions, strict=True)])
    whole = (weights[1:, None] * placed).sum(0)
    return whole + weights[0] * canvases[0] if len(canvases) > len(regions) else whole


def _placed(canvas: Tensor, region: Region) -> Tensor:
    """A canvas (3, side, side) in the middle of the region's bounding box, made smaller to fit into it, or in a long
    box into half as much again. Beyond the region it is cut off; where it does not reach, its edge goes on."""
    side = canvas.shape[-1]
    covered = region.coverage(side) >= 0.5
    top, height = _extent(covered.any(1))
    left, width = _extent(covered.any(0))
    small = min(round(LARGER * min(height, width)), max(height, width))
    made = interpolate(canvas[None], (small, small), mode="bicubic", antialias=True).clamp(0, 1)
    above, before = top + (height - small) // 2, left + (width - small) // 2
    return pad(made, (before, side - before - small, above, side - above - small), mode="replicate")[0]


def _extent(covered: Tensor) -> tuple[int, int]:
    """Where the covered places begin, and how many there are from the first to the last; at least one."""
    places = covered.nonzero().flatten().tolist() or [0]
    return places[0], places[-1] - places[0] + 1
