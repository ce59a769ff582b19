"""Sequences of classes for comparisons: drawn from the built-in world, or from a folder.

A shipped class is a thing of the world that looks like no other, drawn in ever new poses, places and renditions: pixel
blocks, poster and neon, each image with parameters of its own. The built-in backbone has seen neither these styles nor
these things nor their colours. Forty of a hundred classes are near neighbours of another: the same noun and pattern,
with colours and proportions not far off. Those whose names end in -dev are for choosing settings.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from mnemon.classification import Example, Task, class_order, read_examples, split_tasks
from mnemon.data.layouts import existing_folder
from mnemon.errors import MnemonError
from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.looks import Look, free_look, neighbour
from mnemon.world.scenes import Scene, render, single_pose
from mnemon.world.styles import random_style
from mnemon.world.things import NOUNS

RENDITIONS = ("pixel", "poster", "neon")
"""The styles that keep colours: instances of a noun differ by these."""
NEIGHBOURS, DISTANCE = 0.4, 0.35
IMAGES = {"train": 8, "test": 6}
"""Of a shipped class."""
SHIPPED = {
    "classes-10": (10, 100, 1001),
    "classes-20": (20, 100, 1001),
    "classes-4-dev": (4, 40, 5001),
}
"""Tasks, classes, and the seed of the first class. classes-20 has the classes of classes-10, in smaller tasks."""

Examples = tuple[Example, ...]


@dataclass(frozen=True)
class ClassSequence:
    """Attributes:
    classes: in the order 0.
    count: of tasks.
    images: draws or reads the images that are trained on, and those to test with.
    """

    name: str
    classes: tuple[str, ...]
    count: int
    images: Callable[[], tuple[Examples, Examples]]

    def tasks(self, order: int) -> list[Task]:
        """Tasks of equally many classes, in the order of CODA-Prompt's code with the seed `order`."""
        return split_tasks(self.images()[0], self.count, class_order(self.classes, order))


def open_classes(what: str, tasks: int | None = None) -> ClassSequence:
    """The shipped sequence of this name, or the classes of a folder with `train` and `test`, split into `tasks`.

    Raises:
        MnemonError: there is neither, a class has no test images, or the classes cannot be shared out.
    """
    if what in SHIPPED:
        count, classes, seed = SHIPPED[what]
        if tasks not in (None, count):
            raise MnemonError(f"The sequence '{what}' has {count} tasks, not {tasks}: leave the number out.")
        looks = _looks(classes, seed)
        return ClassSequence(what, tuple(looks), count, partial(_drawn, classes, seed))
    if not Path(what).expanduser().is_dir():
        raise MnemonError(
            f"There is no sequence '{what}': give one of {', '.join(SHIPPED)}, or a folder with `train` and `test`."
        )
    return _from_folder(existing_folder(what), tasks)


def _from_folder(folder: Path, tasks: int | None) -> ClassSequence:
    if tasks is None:
        raise MnemonError(f"Say into how many tasks the classes of '{folder}' are split: --tasks 10.")
    images = _read(folder)
    classes = tuple(dict.fromkeys(one.label for one in images[0]))
    if missing := [label for label in classes if label not in {one.label for one in images[1]}]:
        raise MnemonError(f"There are no test images of the class '{missing[0]}' in '{folder}': add some.")
    sequence = ClassSequence(folder.resolve().name, classes, tasks, partial(_read, folder))
    sequence.tasks(0)
    return sequence


@cache
def _read(folder: Path) -> tuple[Examples, Examples]:
    return tuple(read_examples(folder, "train")), tuple(read_examples(folder, "test"))


def _looks(count: int, seed: int) -> dict[str, Look]:
    """By class. The last of them are neighbours of the first."""
    own = round(count * (1 - NEIGHBOURS))
    looks: dict[str, Look] = {}
    for number in range(count):
        rng = np.random.default_rng((seed + number, 37))
        if number < own:
            look = free_look(rng, NOUNS[number % len(NOUNS)])
        else:
            look = neighbour(list(looks.values())[number - own], rng, DISTANCE)
        looks[f"{look.noun}-{number + 1:03}"] = look
    return looks


@cache
def _drawn(count: int, seed: int) -> tuple[Examples, Examples]:
    """The images of each split, class by class."""
    looks = _looks(count, seed)
    train, test = (
        tuple(
            _example(look, label, seed, split, image) for label, look in looks.items() for image in range(IMAGES[split])
        )
        for split in ("train", "test")
    )
    return train, test


def _example(look: Look, label: str, seed: int, split: str, number: int) -> Example:
    rng = np.random.default_rng((seed, int(label[-3:]), list(IMAGES).index(split), number))
    style = random_style(rng, str(rng.choice(RENDITIONS)))
    background = str(rng.choice(list(BACKGROUNDS)))
    image = render(Scene((look,), (single_pose(rng),), background, int(rng.integers(2**31)), style)).image
    return Example(image, label, f"{label}/{split}/{number}", hashlib.sha256(image.tobytes()).hexdigest())
