"""Images the tests of this room make for themselves."""

from pathlib import Path

import numpy as np
from PIL import Image

from mnemon.data import Concept, Photo

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save_image(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (24, 16)) -> Path:
    """An image of one colour, in the format of the path's suffix, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def photo(pixels: np.ndarray) -> Photo:
    """A photo of pixels (height, width, 3), uint8."""
    return Photo(Image.fromarray(pixels), source="made", sha256="")


def concept(*pixels: np.ndarray) -> Concept:
    return Concept("rex", tuple(photo(p) for p in pixels))
