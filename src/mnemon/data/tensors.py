"""Photos as one tensor of square images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mnemon.data.concept import Concept, Photo, decoded
from mnemon.data.parallel import in_threads
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
    squares = photo_squares(concept, side, fit=fit, flip=flip, random_crop=random_crop, generator=generator)
    return torch.stack(list(squares))


def photo_squares(
    concept: Concept,
    side: int,
    *,
    fit: Fit = "crop",
    flip: bool = False,
    random_crop: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """`photos_tensor` one after another, (3, side, side): photos are decoded in threads, a few at a time.

    Raises:
        MnemonError: as `photos_tensor`.
    """
    _check(fit, random_crop, flip or random_crop, generator)
    frames = [_frame(fit, flip, random_crop, generator) for _ in concept.photos]

    def square(pair: tuple[Photo, Frame]) -> Tensor:
        photo, frame = pair
        # Twice the side: what is left of the scaling is done by Lanczos, as it is for other formats than JPEG.
        return frame.tensor(decoded(photo.stored, 2 * side), side, "white")

    return in_threads(square, zip(concept.photos, frames, strict=True))


def masks_tensor(
    concept: Concept,
    side: int,
    *,
    fit: Fit = "crop",
    random_crop: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The photos' masks, (n, 1, side, side) in 0..1, cut as `photos_tensor` cuts the photos when it is given a
    generator in the same state; 1 all over where a photo has none, 0 beside padded photos.

    Raises:
        MnemonError: a mask has another shape than its photo, or is black where the photo is cut.
    """
    frames = [_frame(fit, False, random_crop, generator) for _ in concept.photos]
    pairs = zip(concept.photos, frames, strict=True)
    return torch.stack(list(in_threads(lambda pair: _mask(*pair, side), pairs)))


@dataclass(frozen=True)
class Frame:
    """How one photo becomes a square: the square's place along the longer side in 0..1, None to pad instead."""

    place: float | None
    mirror: bool = False

    def tensor(self, image: Image.Image, side: int, beside: str) -> Tensor:
        """The square, (channels, side, side) in 0..1; padded with the colour `beside`."""
        square = _pad(image, side, beside) if self.place is None else _crop(image, side, self.place)
        pixels = torch.from_numpy(np.atleast_3d(np.array(square))).permute(2, 0, 1).float() / 255
        return pixels.flip(-1) if self.mirror else pixels


def _frame(fit: Fit, flip: bool, random_crop: bool, generator: torch.Generator | None) -> Frame:
    # Both numbers are sampled whatever the options, so that switching one does not change the other.
    mirror, place = torch.rand(2, generator=generator).tolist() if generator else (1.0, 0.5)
    return Frame(None if fit == "pad" else place if random_crop else 0.5, flip and mirror < 0.5)


def _mask(photo: Photo, frame: Frame, side: int) -> Tensor:
    width, height = (photo_image := decoded(photo.stored, 1)).size
    if photo.mask is None:
        mask = Image.new("L", photo_image.size, 255)
    else:
        mask = decoded(photo.mask)
        # JPEGs of other sizes than multiples of 8 come out of the scaled decoding up to a pixel larger.
        if abs(mask.width * height - mask.height * width) > 0.02 * mask.width * height + max(mask.size):
            raise MnemonError(
                f"The mask of '{photo.source}' has {mask.width} x {mask.height} pixels, another shape than the photo: "
                "make it as large as the photo."
            )
    square = frame.tensor(mask, side, "black")
    if not square.any():
        raise MnemonError(f"The mask of '{photo.source}' is black where the photo is used: paint the thing white.")
    return square


def _check(fit: str, random_crop: bool, draws: bool, generator: torch.Generator | None) -> None:
    if fit not in ("crop", "pad"):
        raise MnemonError(f"Photos cannot be fitted by '{fit}': use 'crop' or 'pad'.")
    if random_crop and fit == "pad":
        raise MnemonError("Padded photos are not cropped: use random_crop with fit='crop' only.")
    if draws and generator is None:
        raise MnemonError("Flips and random crops draw random numbers: pass a seeded torch.Generator as generator.")


def _resampling(image: Image.Image) -> Image.Resampling:
    """Shares of the area for masks, which must not ring at their edges."""
    return Image.Resampling.BOX if image.mode == "L" else Image.Resampling.LANCZOS


def _crop(image: Image.Image, side: int, place: float) -> Image.Image:
    """The largest square, at `place` (0..1) along the longer side, scaled to `side`."""
    width, height = image.size
    square = min(width, height)
    left, top = round((width - square) * place), round((height - square) * place)
    # Cropped first: resize(box=...) lets what lies beside the box bleed into its edge.
    return image.crop((left, top, left + square, top + square)).resize((side, side), _resampling(image))


def _pad(image: Image.Image, side: int, beside: str) -> Image.Image:
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new(image.mode, (side, side), beside)
    canvas.paste(image.resize((width, height), _resampling(image)), ((side - width) // 2, (side - height) // 2))
    return canvas
