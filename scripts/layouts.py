"""Layouts of several concepts in one image, drawn from a seed: boxes that split the image, concepts and a place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mnemon.sampling.regions import Box, Region
from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.captions import with_article

COUNTS = (2, 3, 4)
KINDS = {2: ("columns", "rows"), 3: ("columns", "rows", "half and quarters"), 4: ("quadrants",)}
SHIFT = 0.06
"""How far a cut may lie from where it would halve (or share evenly), as a fraction of the side."""
SIDE = 64
"""What the boxes are made to before they are recognised, in pixels."""
FRAMES = ("#e6194b", "#3cb44b", "#4363d8", "#f58231")


@dataclass(frozen=True)
class Layout:
    """What one image shows. `boxes` are fractions of the image, which they cover; `seed` is the image's."""

    names: tuple[str, ...]
    nouns: tuple[str, ...]
    boxes: tuple[Box, ...]
    kind: str
    scene: str
    seed: int

    def prompt(self, called: Mapping[str, str]) -> str:
        """The prompt that names all concepts, for an image without regions."""
        return f"a photo of {' and '.join(called[name] for name in self.names)} {self.scene}"

    @property
    def around(self) -> str:
        """The same in words of the world alone: what the whole image is told where its regions name the concepts."""
        return f"a photo of {' and '.join(with_article(class_noun) for class_noun in self.nouns)} {self.scene}"

    def regions(self, called: Mapping[str, str]) -> list[Region]:
        return [
            Region(f"a photo of {called[name]} {self.scene}", box)
            for name, box in zip(self.names, self.boxes, strict=True)
        ]

    def fitted(self, photos: Mapping[str, Tensor], index: int) -> list[Tensor]:
        """For each box a photo of its concept, made smaller to fit, the rest of the box filled up: (1, 3, 64, 64)."""
        return [_fitted(photos[name][index], box) for name, box in zip(self.names, self.boxes, strict=True)]

    def framed(self, image: Image.Image) -> Image.Image:
        """The image with its boxes drawn in."""
        framed = image.convert("RGB")
        pen = ImageDraw.Draw(framed)
        for box, colour in zip(self.boxes, FRAMES, strict=False):
            left, top, right, bottom = (round(edge * framed.width) for edge in box)
            pen.rectangle((left, top, right - 1, bottom - 1), outline=colour)
        return framed


def layouts_of(nouns: Mapping[str, str], count: int, number: int, seed: int) -> list[Layout]:
    """The same for the same arguments; the first of more are those of fewer. `nouns` are the concepts' by name."""
    rng = np.random.default_rng([seed, count])
    return [_layout(nouns, count, rng) for _ in range(number)]


def crops(image: Tensor, layout: Layout) -> Tensor:
    """What is in each box of an image (3, side, side), stretched to (boxes, 3, 64, 64)."""
    parts = []
    for box in layout.boxes:
        left, top, right, bottom = (round(edge * image.shape[-1]) for edge in box)
        parts.append(_stretched(image[None, :, top:bottom, left:right], SIDE, SIDE))
    return torch.cat(parts)


def _layout(nouns: Mapping[str, str], count: int, rng: np.random.Generator) -> Layout:
    kind = str(rng.choice(KINDS[count]))
    names = tuple(str(name) for name in rng.permutation(list(nouns))[:count])
    scene, seed = str(rng.choice(list(BACKGROUNDS))), int(rng.integers(2**31))
    return Layout(names, tuple(nouns[name] for name in names), _boxes(kind, count, rng), kind, scene, seed)


def _boxes(kind: str, count: int, rng: np.random.Generator) -> tuple[Box, ...]:
    if kind in ("columns", "rows"):
        edges = [0.0, *(part / count + rng.uniform(-SHIFT, SHIFT) for part in range(1, count)), 1.0]
        spans = zip(edges, edges[1:], strict=False)
        boxes: list[Box] = [(start, 0.0, end, 1.0) for start, end in spans]
        return _turned(boxes, quarter=kind == "rows", mirror=False)
    across, down = 0.5 + rng.uniform(-SHIFT, SHIFT, 2)
    right: list[Box] = [(across, 0.0, 1.0, down), (across, down, 1.0, 1.0)]
    if kind == "quadrants":
        return ((0.0, 0.0, across, down), right[0], (0.0, down, across, 1.0), right[1])
    quarter, mirror = (bool(side) for side in rng.integers(2, size=2))
    return _turned([(0.0, 0.0, across, 1.0), *right], quarter, mirror)


def _turned(boxes: Sequence[Box], quarter: bool, mirror: bool) -> tuple[Box, ...]:
    """Boxes with left and right swapped (`mirror`), then with across and down swapped (`quarter`)."""
    if mirror:
        boxes = [(1 - right, top, 1 - left, bottom) for left, top, right, bottom in boxes]
    return tuple((top, left, bottom, right) if quarter else (left, top, right, bottom)
                 for left, top, right, bottom in boxes)  # fmt: skip


def _fitted(photo: Tensor, box: Box) -> Tensor:
    left, top, right, bottom = (round(edge * photo.shape[-1]) for edge in box)
    height, width = bottom - top, right - left
    side = min(height, width)
    small = _stretched(photo[None], side, side)
    down, across = height - side, width - side
    around = (across // 2, across - across // 2, down // 2, down - down // 2)
    return _stretched(pad(small, around, mode="replicate"), SIDE, SIDE)


def _stretched(images: Tensor, height: int, width: int) -> Tensor:
    return interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
