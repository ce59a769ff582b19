"""Classes and their images, and the tasks that bring them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mnemon.data.reading import read_photo
from mnemon.errors import MnemonError
from mnemon.names import NAME, NAME_RULE


@dataclass(frozen=True)
class Example:
    """An image of a class, upright RGB. `source` names the file for errors, `sha256` is the hash of its bytes."""

    image: Image.Image
    label: str
    source: str
    sha256: str

    @staticmethod
    def read(path: Path, label: str) -> "Example":
        """Raises:
        MnemonError: the file is no readable image.
        """
        photo = read_photo(path)
        return Example(photo.image, label, photo.source, photo.sha256)


@dataclass(frozen=True)
class Task:
    """New classes and their images.

    Attributes:
        name: the task's, an identifier.
        classes: in the order of their rows in the head.
        examples: of these classes.

    Raises:
        MnemonError: the name is no identifier, a class stands there twice or has no image, an image is of another
            class, or one image has two classes.
    """

    name: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise MnemonError(f"'{self.name}' cannot name a task: {NAME_RULE}")
        if not self.classes:
            raise MnemonError(f"The task '{self.name}' has no classes: give a folder with one folder per class.")
        twice = [label for place, label in enumerate(self.classes) if label in self.classes[:place]]
        if twice:
            raise MnemonError(f"The task '{self.name}' has the class '{twice[0]}' twice: put its images together.")
        labels = {one.label for one in self.examples}
        for label in self.classes:
            if label not in labels:
                raise MnemonError(
                    f"The class '{label}' of the task '{self.name}' has no images: add some, or leave it out."
                )
        if unknown := sorted(labels - set(self.classes)):
            raise MnemonError(f"The task '{self.name}' has images of '{unknown[0]}', which is none of its classes.")
        check_one_class_each(self.examples)

    def labels(self) -> list[int]:
        """The number of each example's class among `classes`."""
        numbers = {label: number for number, label in enumerate(self.classes)}
        return [numbers[one.label] for one in self.examples]


def check_one_class_each(examples: Sequence[Example]) -> None:
    """Raises:
    MnemonError: the same image is given for two classes; both files are named.
    """
    seen: dict[str, Example] = {}
    for one in examples:
        other = seen.setdefault(one.sha256, one)
        if other.label != one.label:
            raise MnemonError(
                f"'{other.source}' and '{one.source}' are the same image, of the classes '{other.label}' and "
                f"'{one.label}': keep the one that is right."
            )


def class_order(classes: Sequence[str], seed: int) -> list[str]:
    """The classes as CODA-Prompt's code orders them: as they are for seed 0, else shuffled by Python's generator."""
    order = list(classes)
    if seed:
        random.Random(seed).shuffle(order)
    return order


def split_tasks(examples: Sequence[Example], count: int, classes: Sequence[str]) -> list[Task]:
    """Tasks `task-1` to `task-<count>` of equally many classes, in the order of `classes`.

    Raises:
        MnemonError: the classes cannot be shared out equally.
    """
    if count < 1 or not classes or len(classes) % count:
        raise MnemonError(f"{len(classes)} classes cannot be split into {count} tasks of equally many.")
    size = len(classes) // count
    groups = [tuple(classes[start : start + size]) for start in range(0, len(classes), size)]
    by_class = _by_class(examples)
    return [
        Task(f"task-{number}", group, tuple(one for label in group for one in by_class.get(label, ())))
        for number, group in enumerate(groups, start=1)
    ]


def _by_class(examples: Sequence[Example]) -> Mapping[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for one in examples:
        groups.setdefault(one.label, []).append(one)
    return groups
