"""Regions of an image with prompts of their own: boxes and masks, their edges and overlaps."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from mnemon.data.reading import read_mask
from mnemon.errors import MnemonError
from mnemon.models.tokens import TOKEN

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of the image, 0..1."""
SCENE = re.compile(r"\b(in|on|at|under|near|by|beside|behind|inside|before)\b.*$")


@dataclass(frozen=True)
class Region:
    """A part of the image and its prompt: a box, or a mask (height, width) of weights in 0..1."""

    prompt: str
    where: Box | Tensor

    def coverage(self, side: int) -> Tensor:
        """The share of each pixel that belongs to the region, (side, side) in 0..1."""
        if isinstance(self.where, Tensor):
            mask = self.where.float()[None, None]
            return interpolate(mask, (side, side), mode="area")[0, 0]
        left, top, right, bottom = self.where
        return _overlap(top, bottom, side)[:, None] * _overlap(left, right, side)[None, :]


def region_from_text(text: str) -> Region:
    """ "0,0,0.5,1:<rex>": left, top, right, bottom as fractions, and the prompt; or "mask.png:<rex>", white there.

    Raises:
        MnemonError: the box leaves the image or is empty, the mask cannot be read, or there is no prompt.
    """
    where, colon, prompt = text.partition(":")
    if not colon or not prompt.strip():
        raise MnemonError(f"The region '{text}' says no prompt: write left,top,right,bottom:prompt, all in 0..1.")
    numbers = where.split(",")
    if len(numbers) != 4:
        return Region(prompt.strip(), _mask(Path(where.strip()), text))
    try:
        left, top, right, bottom = (float(number) for number in numbers)
    except ValueError:
        raise MnemonError(f"The region '{text}' has a corner that is no number: write 0,0,0.5,1:prompt.") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise MnemonError(
            f"The region '{text}' is not inside the image: left, top, right, bottom are fractions in 0..1, "
            "left less than right and top less than bottom."
        )
    return Region(prompt.strip(), (left, top, right, bottom))


def region_to_text(region: Region) -> str:
    """The inverse of `region_from_text`; of a mask it only says that it is one."""
    where = "mask" if isinstance(region.where, Tensor) else ",".join(f"{edge:g}" for edge in region.where)
    return f"{where}:{region.prompt}"


def layout_boxes(count: int) -> list[Box]:
    """Boxes for `count` objects side by side: whole, halves, two above one, quarters, then rows of columns.

    Raises:
        MnemonError: none, or more than nine.
    """
    if not 1 <= count <= 9:
        raise MnemonError(f"{count} concepts cannot be spread over an image: name one to nine, or give regions.")
    rows = round(count**0.5)
    columns = [count // rows + (row < count % rows) for row in range(rows)]
    return [
        (column / many, row / rows, (column + 1) / many, (row + 1) / rows)
        for row, many in enumerate(columns)
        for column in range(many)
    ]


def scene_of(prompt: str) -> str:
    """The setting of a prompt, for the prompts of its regions: "on the beach" of "a mug and a cat on the beach"."""
    after = TOKEN.split(prompt)[-1]
    found = SCENE.search(after)
    return found.group(0).strip() if found else ""


def region_masks(regions: Sequence[Region], side: int, feather: float = 0.0) -> Tensor:
    """Weights of the image's own prompt and of each region's at each pixel, (1 + regions, side, side), summing to one.

    Overlapping regions have equal weights. `feather` is the width of the transition at edges as a fraction of the side.
    """
    coverage = torch.stack([region.coverage(side) for region in regions])
    masks = _box_blur(coverage, round(feather * side)) / coverage.sum(0).clamp(min=1)
    return torch.cat([(1 - masks.sum(0, keepdim=True)).clamp(min=0), masks])


def _overlap(start: float, end: float, side: int) -> Tensor:
    """The share of each of `side` cells between two fractions of the side."""
    edges = torch.arange(side + 1) / side
    return ((edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)) * side).clamp(0, 1)


def _box_blur(coverage: Tensor, width: int) -> Tensor:
    if width < 2:
        return coverage
    width += 1 - width % 2  # odd, so that it is centred
    around = pad(coverage[None], [width // 2] * 4, mode="replicate")
    return avg_pool2d(around, width, stride=1)[0]


def _mask(path: Path, text: str) -> Tensor:
    """The mask's weights (height, width) in 0..1.

    Warns:
        UserWarning: it is no square, which images are, or far from white everywhere.
    """
    if not path.exists():
        raise MnemonError(
            f"The region '{text}' is neither a box (left,top,right,bottom) nor a mask: there is no file '{path}'."
        )
    image = read_mask(path)
    if image.width != image.height:
        shape = f"is {image.width} x {image.height} pixels, and is stretched to the image's square"
        warnings.warn(f"The mask '{path}' of a region {shape}.", UserWarning, stacklevel=3)
    mask = torch.from_numpy(np.asarray(image, np.float32) / 255)
    if (most := mask.max().item()) < 0.5:
        warnings.warn(
            f"The mask '{path}' of a region is nowhere brighter than {most:.0%}, and its prompt counts no more than "
            "that: paint the region white.",
            UserWarning,
            stacklevel=3,
        )
    return mask
