"""Ways of drawing everything: a style turns the pixels of a finished image into others.

Styles come in families (pencil, pixel blocks, poster, ink, blueprint, neon); a family with its parameters is one
style, so there are as many as one likes. A style concept is one of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mnemon.world.looks import RGB

Pixels = NDArray[np.float32]  # (height, width, 3), 0..1

FAMILIES: tuple[str, ...] = ("pencil", "pixel", "poster", "ink", "blueprint", "neon")


@dataclass(frozen=True)
class Style:
    """A family and its two colours (paper and pen) and strength 0..1."""

    family: str
    paper: RGB
    pen: RGB
    strength: float


def random_style(rng: np.random.Generator, family: str | None = None) -> Style:
    """A style of `family`, or of a random one."""
    light = tuple(rng.uniform(0.8, 1.0, 3).tolist())
    dark = tuple(rng.uniform(0.0, 0.35, 3).tolist())
    return Style(family or str(rng.choice(FAMILIES)), light, dark, float(rng.uniform(0.3, 1.0)))


def apply_style(pixels: Pixels, style: Style) -> Pixels:
    """`pixels` in `style`; same shape, 0..1."""
    paper, pen = np.array(style.paper, np.float32), np.array(style.pen, np.float32)
    if style.family == "pixel":
        return _pixels(pixels, 4 if style.strength < 0.65 else 6)
    if style.family == "poster":
        levels = 2 if style.strength > 0.65 else 3
        poster: Pixels = np.round(pixels * levels) / levels * (0.6 + 0.4 * paper)
        return poster
    grey = pixels @ np.array([0.3, 0.59, 0.11], np.float32)
    if style.family == "ink":
        return np.where((grey > 0.35 + 0.25 * style.strength)[..., None], paper, pen)
    lines = np.clip(_edges(pixels) * (1.5 + 2 * style.strength), 0, 1)[..., None]
    if style.family == "pencil":
        return paper * (1 - lines) * (0.55 + 0.45 * grey[..., None]) + pen * lines
    if style.family == "blueprint":
        ground = np.array([pen[0] * 0.5, pen[1], 0.45 + pen[2]], np.float32)
        return ground * (1 - lines) + paper * lines
    glow = pixels**2 * 1.2  # neon: dark grounds, bright lines in the image's own colours
    return np.clip(glow * 0.35 + lines * (pixels * 0.5 + 0.5 * paper), 0, 1).astype(np.float32)


def _pixels(pixels: Pixels, block: int) -> Pixels:
    image = Image.fromarray((pixels * 255).astype(np.uint8))
    small = image.resize((image.width // block, image.height // block), Image.Resampling.BOX)
    large = small.resize(image.size, Image.Resampling.NEAREST)
    return np.asarray(large, np.float32) / np.float32(255)


def _edges(pixels: Pixels) -> NDArray[np.float32]:
    image = Image.fromarray((pixels * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
    array = np.asarray(image, np.float32) / 255
    across = np.abs(np.diff(array, axis=1, append=array[:, -1:])).max(-1)
    down = np.abs(np.diff(array, axis=0, append=array[-1:])).max(-1)
    return np.maximum(across, down)
