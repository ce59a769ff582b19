"""Sequences of concepts: what a run learns, in which order.

The shipped ones are JSON files in `data/`: concepts of the built-in world by their seeds. Those whose names end in -dev
are for choosing settings (seeds from 5001 upward); results are reported on the others (from 1001 upward) only.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnemon.data.concept import Concept
from mnemon.errors import MnemonError
from mnemon.evaluation.prompts import Kind
from mnemon.world import WorldConcept, style_concept, thing_concept

_DATA = files("mnemon.benchmark") / "data"
_TRAINED, _HELD_OUT = 1, 2  # seeds of the photos of a world concept


class Photos(NamedTuple):
    """What is trained on, and what is scored against. `held_out` is false where the two are the same photos."""

    trained: Concept
    references: Concept
    held_out: bool


@dataclass(frozen=True)
class ConceptSpec:
    """A concept of a sequence.

    Attributes:
        name, class_noun: the concept's.
        kind: "thing", or "style": a way of drawing everything.
        photos: draws or reads its images.
        templates: evaluation prompts of its own with one `{}` for the concept; without, those of the encoders' set.
    """

    name: str
    class_noun: str | None
    kind: Kind
    photos: Callable[[], Photos]
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConceptSequence:
    """`concepts` in the order in which they are learned."""

    name: str
    concepts: tuple[ConceptSpec, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in self.concepts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise MnemonError(f"The sequence '{self.name}' has two concepts '{twice}': give them names of their own.")
        if not names:
            raise MnemonError(f"The sequence '{self.name}' has no concepts.")

    def ordered(self, order: int) -> "ConceptSequence":
        """Order 0 is the one given; every other number is the seed of a permutation unlike those of lower numbers.

        Raises:
            MnemonError: so few concepts do not have as many orders.
        """
        count = len(self.concepts)
        if order >= math.factorial(count):
            raise MnemonError(
                f"The sequence '{self.name}' has {count} concepts, so {math.factorial(count)} orders, not {order + 1}."
            )
        return replace(self, concepts=tuple(self.concepts[place] for place in _permutation(count, order)))


def _permutation(count: int, order: int) -> tuple[int, ...]:
    """Of 0..count-1; 0 is the one in order, and all are different, or a second order would repeat the runs of another
    and make their spread too small."""
    orders = [tuple(range(count))]
    for number in range(1, order + 1):
        rng = np.random.default_rng((number, 61))
        while (places := tuple(rng.permutation(count).tolist())) in orders:
            pass
        orders.append(places)
    return orders[order]


def shipped_sequences() -> list[str]:
    """The names of the sequences that come with mnemon."""
    return sorted(Path(file.name).stem for file in _DATA.iterdir() if file.name.endswith(".json"))


def shipped_sequence(name: str) -> ConceptSequence:
    """One of `shipped_sequences`."""
    content = json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))
    counts = content["photos"], content["references"]
    return ConceptSequence(name, tuple(_world_concept(entry, *counts) for entry in content["concepts"]))


def _world_concept(entry: Mapping[str, Any], photos: int, references: int) -> ConceptSpec:
    name, seed = entry["name"], entry["seed"]
    if "style" in entry:
        style = style_concept(name, seed, entry["style"])
        return ConceptSpec(name, None, "style", cache(partial(_draw, style, photos, references)))
    thing = thing_concept(name, seed, entry["noun"])
    return ConceptSpec(name, thing.class_noun, "thing", cache(partial(_draw, thing, photos, references)))


def _draw(concept: WorldConcept, photos: int, references: int) -> Photos:
    """As many images of each kind, in other poses and places."""
    return Photos(concept.photos(photos, _TRAINED), concept.photos(references, _HELD_OUT), held_out=True)
