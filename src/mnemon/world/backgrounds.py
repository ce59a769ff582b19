"""The places of the world: nine backgrounds, each with a little jitter, as the words after the thing in a caption."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mnemon.world.looks import RGB

Draw = ImageDraw.ImageDraw


def _blobs(
    draw: Draw, rng: np.random.Generator, size: int, count: int, rows: tuple[float, float], radius: float, fill: str
) -> None:
    for _ in range(count):
        x, y = rng.uniform(0, size), rng.uniform(*rows) * size
        r = radius * size * rng.uniform(0.7, 1.3)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _beach(draw: Draw, rng: np.random.Generator, size: int) -> None:
    sea = rng.uniform(0.4, 0.48) * size
    draw.rectangle((0, sea, size, size), fill="#3f8fd0")
    draw.rectangle((0, sea + 0.14 * size, size, size), fill="#ecd9a0")
    x = rng.choice([0.12, 0.88]) * size
    draw.ellipse((x - 0.09 * size, 0.05 * size, x + 0.09 * size, 0.23 * size), fill="#fff3b0")


def _meadow(draw: Draw, rng: np.random.Generator, size: int) -> None:
    draw.rectangle((0, rng.uniform(0.48, 0.56) * size, size, size), fill="#79bd54")
    _blobs(draw, rng, size, 7, (0.66, 0.97), 0.022, "#ffe44d")


def _snow(draw: Draw, rng: np.random.Generator, size: int) -> None:
    top = rng.uniform(0.5, 0.6) * size
    draw.ellipse((-0.5 * size, top, 1.5 * size, 2.2 * size), fill="#f4f8fc")
    _blobs(draw, rng, size, 12, (0.03, 0.5), 0.016, "#ffffff")


def _desert(draw: Draw, rng: np.random.Generator, size: int) -> None:
    for row, fill in ((0.5, "#d98a45"), (0.66, "#c46f30")):
        x, top = rng.uniform(0.1, 0.9) * size, (row + rng.uniform(-0.03, 0.03)) * size
        draw.ellipse((x - 1.1 * size, top, x + 1.1 * size, top + 1.6 * size), fill=fill)


def _night(draw: Draw, rng: np.random.Generator, size: int) -> None:
    _blobs(draw, rng, size, 12, (0.02, 0.7), 0.013, "#fdf6d8")
    draw.rectangle((0, rng.uniform(0.76, 0.82) * size, size, size), fill="#1b2440")


def _city(draw: Draw, rng: np.random.Generator, size: int) -> None:
    x = -0.05
    while x < 1:
        width, top = rng.uniform(0.14, 0.22), rng.uniform(0.12, 0.42)
        draw.rectangle((x * size, top * size, (x + width) * size, size), fill=str(rng.choice(["#7c8795", "#95a0ad"])))
        x += width
    draw.rectangle((0, 0.8 * size, size, size), fill="#4d525a")


def _kitchen(draw: Draw, rng: np.random.Generator, size: int) -> None:
    floor = rng.uniform(0.66, 0.72)
    draw.rectangle((0, floor * size, size, size), fill="#8d5a3a")
    step = 0.25 * size
    for column in range(5):
        x = column * step + rng.uniform(-0.01, 0.01) * size
        draw.line((x, 0, x, floor * size), fill="#e3c9b4", width=max(1, size // 40))


def _sea(draw: Draw, rng: np.random.Generator, size: int) -> None:
    _blobs(draw, rng, size, 8, (0.05, 0.75), 0.03, "#5fc0dd")
    draw.rectangle((0, rng.uniform(0.84, 0.9) * size, size, size), fill="#c9b77c")


def _stage(draw: Draw, rng: np.random.Generator, size: int) -> None:
    width, offset = 0.25 * size, rng.uniform(0, 0.25) * size
    for column in range(-1, 5):
        x = column * width + offset
        draw.rectangle((x, 0, x + width / 2, size), fill="#8c1d3a")
    draw.rectangle((0, rng.uniform(0.76, 0.82) * size, size, size), fill="#d8b07a")


BACKGROUNDS: dict[str, tuple[RGB, RGB, Callable[[Draw, np.random.Generator, int], None]]] = {
    "on the beach": ((0.62, 0.84, 0.97), (0.80, 0.92, 0.98), _beach),
    "in the meadow": ((0.55, 0.80, 0.98), (0.85, 0.94, 0.99), _meadow),
    "in the snow": ((0.68, 0.76, 0.86), (0.84, 0.88, 0.93), _snow),
    "in the desert": ((0.99, 0.83, 0.50), (0.98, 0.70, 0.40), _desert),
    "at night": ((0.05, 0.07, 0.20), (0.12, 0.16, 0.38), _night),
    "in the city": ((0.78, 0.82, 0.88), (0.88, 0.90, 0.93), _city),
    "in the kitchen": ((0.97, 0.90, 0.82), (0.94, 0.86, 0.77), _kitchen),
    "in the sea": ((0.20, 0.62, 0.80), (0.04, 0.28, 0.52), _sea),
    "on the stage": ((0.66, 0.12, 0.26), (0.56, 0.08, 0.20), _stage),
}


def paint_background(name: str, rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """The place `name`, (size, size, 3), about 0..1: details over a gradient from top to bottom, in random light."""
    top, bottom, paint_details = BACKGROUNDS[name]
    weight = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    rows = np.array(top, np.float32) * (1 - weight) + np.array(bottom, np.float32) * weight
    image = Image.fromarray((np.repeat(rows, size, axis=1) * 255).astype(np.uint8))
    paint_details(ImageDraw.Draw(image), rng, size)
    light = np.float32(rng.uniform(0.94, 1.06))
    return (np.asarray(image, np.float32) / 255 * light).astype(np.float32)
