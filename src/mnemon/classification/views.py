"""Images as the backbone sees them, for training and for tests (the protocol of CODA-Prompt, arXiv 2211.13218)."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

T = TypeVar("T")
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
SHORTER_SIDE = 256 / 224  # of the resized image, in sides of the view
KEPT = 3  # sides of the view that an image's shorter side is kept at, at most


def kept(image: Image.Image, side: int) -> Image.Image:
    """The image, scaled down where it is so large that memory would be the limit."""
    scale = KEPT * side / min(image.size)
    return image if scale >= 1 else image.resize(_scaled(image, scale), Image.Resampling.BILINEAR)


def test_view(image: Image.Image, side: int) -> Tensor:
    """The middle square, (3, side, side) in 0..1, of the image with its shorter side at 256 / 224 of `side`."""
    shorter = round(SHORTER_SIDE * side)
    # The longer side is cut to whole pixels, as by transformers' and torchvision's resizing.
    width, height = (shorter * length // min(image.size) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _tensor(image.crop((left, top, left + side, top + side)))


def training_view(image: Image.Image, side: int, generator: torch.Generator) -> Tensor:
    """A random part, of 8 to 100 % of the area and of 3:4 to 4:3, as (3, side, side) in 0..1; half of them mirrored.

    A part that would not fit is cut to the image's size.
    """
    draws = torch.rand(5, generator=generator, device=generator.device).tolist()
    area = (AREA[0] + draws[0] * (AREA[1] - AREA[0])) * image.width * image.height
    aspect = math.exp(math.log(ASPECT[0]) + draws[1] * math.log(ASPECT[1] / ASPECT[0]))
    width = min(image.width, max(1, round(math.sqrt(area * aspect))))
    height = min(image.height, max(1, round(math.sqrt(area / aspect))))
    left, top = round(draws[2] * (image.width - width)), round(draws[3] * (image.height - height))
    part = image.crop((left, top, left + width, top + height)).resize((side, side), Image.Resampling.BILINEAR)
    view = _tensor(part)
    return view.flip(-1) if draws[4] < 0.5 else view


def normalised(views: Sequence[Tensor], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Views in 0..1 as one batch, (images, 3, side, side), less `mean` and over `std` of each channel."""
    images = torch.stack(list(views))
    return (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, `size` at a time; the last chunk may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _scaled(image: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(scale * image.width)), max(1, round(scale * image.height))


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
