"""Photos as one tensor of square images."""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mnemon.data.concept import Concept
from mnemon.errors import MnemonError

Fit = Literal["crop", "pad"]


def photos_tensor(
    concept: Concept,
    side: int,
    *,
    fit: Fit = "crop",
    flip: bool = False,
    random_crop: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The concept's photos, (n, 3, side, side), fp32 in 0..1, in the concept's order.

    Args:
        concept: whose photos.
        side: side of the squares in pixels.
        fit: "crop" keeps the largest square, "pad" the whole photo, in the middle of white.
        flip: mirror each photo left to right with probability one half.
        random_crop: take the square anywhere along the longer side, not in the middle; only with fit="crop".
        generator: a CPU generator for flips and crops.

    Raises:
        MnemonError: the options contradict each other, or `flip` or `random_crop` lack a generator.
    """
    _check(fit, random_crop, flip or random_crop, generator)
    squares = []
    for photo in concept.photos:
        # Both numbers are sampled whatever the options, so that switching one does not change the other.
        mirror, place = torch.rand(2, generator=generator).tolist() if generator else (1.0, 0.5)
        square = _pad(photo.image, side) if fit == "pad" else _crop(photo.image, side, place if random_crop else 0.5)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255  # (3, side, side)
        squares.append(pixels.flip(-1) if flip and mirror < 0.5 else pixels)
    return torch.stack(squares)


def _check(fit: str, random_crop: bool, draws: bool, generator: torch.Generator | None) -> None:
    if fit not in ("crop", "pad"):
        raise MnemonError(f"Photos cannot be fitted by '{fit}': use 'crop' or 'pad'.")
    if random_crop and fit == "pad":
        raise MnemonError("Padded photos are not cropped: use random_crop with fit='crop' only.")
    if draws and generator is None:
        raise MnemonError("Flips and random crops draw random numbers: pass a seeded torch.Generator as generator.")


def _crop(image: Image.Image, side: int, place: float) -> Image.Image:
    """The largest square, at `place` (0..1) along the longer side, scaled to `side`."""
    width, height = image.size
    square = min(width, height)
    left, top = round((width - square) * place), round((height - square) * place)
    # Cropped first: resize(box=...) lets what lies beside the box bleed into its edge.
    return image.crop((left, top, left + square, top + square)).resize((side, side), Image.Resampling.LANCZOS)


def _pad(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((side - width) // 2, (side - height) // 2))
    return canvas
