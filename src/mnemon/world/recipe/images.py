"""Training images of the built-in base, rendered once and kept as safetensors in the working folder."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from mnemon.tensor_files import write_safetensors
from mnemon.world.attributes import ATTRIBUTES
from mnemon.world.captions import caption
from mnemon.world.looks import free_look, palette_look
from mnemon.world.scenes import Scene, random_scene, render, single_pose
from mnemon.world.styles import random_style
from mnemon.world.things import NOUNS

CAPTIONS = 4  # an image
STYLED = 0.05  # share of images in a random style
Maker = Callable[[int, int, int], list[tuple[Scene, list[str]]]]
_CHUNK = 500


@dataclass(frozen=True)
class Images:
    """Rendered images.

    Attributes:
        pixels: (n, 64, 64, 3) uint8.
        mask: (n, 8, 8), share of each place covered by things.
        present: (n, nouns), 0 or 1 for every noun in the image.
        labels: attribute -> (n,) class numbers, -1 where there is none.
        captions: n lists.
    """

    pixels: Tensor
    mask: Tensor
    present: Tensor
    labels: dict[str, Tensor]
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.pixels)


def to_input(pixels: Tensor) -> Tensor:
    """(n, 64, 64, 3) uint8 to (n, 3, 64, 64) float in -1..1, channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def scenes(folder: Path, seed: int, count: int) -> Images:
    """`count` random scenes, one or two things each, some in free colours, some in a style."""
    return _cached(folder / f"scenes-{seed}-{count}.safetensors", _scene_chunk, seed, count)


def plain(folder: Path, seed: int, count: int) -> Images:
    """`count` single things in named colours, none in a style; without captions."""
    return _cached(folder / f"plain-{seed}-{count}.safetensors", _plain_chunk, seed, count)


def pairs(folder: Path, seed: int, count: int) -> Images:
    """`count` looks, each rendered twice in other poses and places: rows 2i and 2i + 1 belong together."""
    return _cached(folder / f"pairs-{seed}-{count}.safetensors", _pair_chunk, seed, count)


def _scene_chunk(seed: int, start: int, stop: int) -> list[tuple[Scene, list[str]]]:
    made = []
    for index in range(start, stop):
        rng = np.random.default_rng((seed, index))
        style = random_style(rng) if rng.random() < STYLED else None
        scene = random_scene(rng, style=style)
        made.append((scene, [caption(scene, rng) for _ in range(CAPTIONS)]))
    return made


def _plain_chunk(seed: int, start: int, stop: int) -> list[tuple[Scene, list[str]]]:
    rngs = [np.random.default_rng((seed, 2, index)) for index in range(start, stop)]
    return [(random_scene(rng, pair=0.0, free=0.0), []) for rng in rngs]


def _pair_chunk(seed: int, start: int, stop: int) -> list[tuple[Scene, list[str]]]:
    made = []
    for index in range(start, stop):
        rng = np.random.default_rng((seed, 1, index))
        look = free_look(rng) if rng.random() < 0.8 else palette_look(rng)
        for background in rng.choice(ATTRIBUTES["background"], 2):
            scene = Scene((look,), (single_pose(rng),), str(background), int(rng.integers(2**31)))
            made.append((scene, [caption(scene, rng) for _ in range(CAPTIONS)]))
    return made


def _render_chunk(job: tuple[Maker, int, int, int]) -> dict[str, Any]:
    maker, seed, start, stop = job
    pixels, masks, labels, present, captions = [], [], [], [], []
    for scene, words in maker(seed, start, stop):
        image = render(scene)
        pixels.append(image.pixels)
        masks.append(np.max(image.masks, axis=0).reshape(8, 8, 8, 8).mean(axis=(1, 3)))
        labels.append(_labels(scene))
        present.append([noun in {look.noun for look in scene.looks} for noun in NOUNS])
        captions.append(words)
    arrays = {"pixels": np.stack(pixels), "mask": np.stack(masks)}
    return arrays | {"labels": np.array(labels), "present": np.array(present, np.uint8), "captions": captions}


def _labels(scene: Scene) -> list[int]:
    """Class numbers of a single thing's attributes; -1 for unnamed ones and for images of two things."""
    if len(scene.looks) > 1 or scene.style is not None:
        return [-1] * len(ATTRIBUTES)
    look = scene.looks[0]
    values = {"noun": look.noun, "colour": look.colour, "pattern": look.pattern, "background": scene.background}
    return [names.index(v) if (v := values[kind]) is not None else -1 for kind, names in ATTRIBUTES.items()]


def _cached(path: Path, maker: Maker, seed: int, count: int) -> Images:
    if not path.exists():
        jobs = [(maker, seed, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(_render_chunk, jobs))
        arrays = {key: np.concatenate([part[key] for part in parts]) for key in ("pixels", "mask", "labels", "present")}
        words = [words for part in parts for words in part["captions"]]
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        write_safetensors(path, tensors, {"captions": json.dumps(words)})
    with safe_open(str(path), framework="pt") as file:
        labels = file.get_tensor("labels")
        return Images(
            file.get_tensor("pixels"),
            file.get_tensor("mask"),
            file.get_tensor("present"),
            {name: labels[:, column] for column, name in enumerate(ATTRIBUTES)},
            json.loads(file.metadata()["captions"]),
        )
