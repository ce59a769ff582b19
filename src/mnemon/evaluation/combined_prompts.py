"""What is drawn of a concept, and of several in one image, to be scored; each prompt also in words alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from mnemon.benchmark.sequences import ConceptSpec
from mnemon.evaluation.prompts import PROMPTS
from mnemon.methods.base import Method
from mnemon.world.captions import with_article

SIZES = (2, 3, 4)
"""How many concepts a prompt names together."""
COMBINATIONS = 4  # of each size
_SETTINGS = {
    "world": ("on the beach", "in the meadow", "in the snow", "in the city"),
    "photographs": ("on the beach", "in a garden", "in the snow", "on a wooden floor"),
}


@dataclass(frozen=True)
class Prompted:
    """Prompts, and for each the same in words that an encoder without concept tokens understands."""

    prompts: list[str]
    words: list[str]


def concept_prompts(method: Method, member: ConceptSpec, family: str, count: int) -> Prompted:
    """`count` evaluation prompts of a concept, every template in turn; `family` is a key of `metrics.prompts.PROMPTS`.

    A style is asked for on the things of the general prompts: "a red mug on the beach in <ink> style".
    """
    called = method.prompt_name(member.name, member.class_noun)
    if member.templates:
        prompts = [template.format(called) for template in member.templates]
        words = [template.format(member.class_noun or "") for template in member.templates]
    elif member.kind == "style":
        words = list(PROMPTS[family].general)
        prompts = [f"{scene} in {called} style" for scene in words]
    else:
        prompts, words = PROMPTS[family].of_concept(called), PROMPTS[family].in_words(member.class_noun)
    words = [" ".join(text.split()) for text in words]
    return Prompted(list(islice(cycle(prompts), count)), list(islice(cycle(words), count)))


def combinations(members: Sequence[ConceptSpec], size: int) -> list[tuple[ConceptSpec, ...]]:
    """Up to four sets of `size` things to be drawn together, of different nouns where there are enough.

    They depend on which concepts there are and not on the order in which they were learned.
    """
    things = sorted((one for one in members if one.kind == "thing"), key=lambda one: one.name)
    if len(things) < size:
        return []
    rng = np.random.default_rng((size, len(things), 83))
    shuffled = [[things[place] for place in rng.permutation(len(things))] for _ in range(8 * COMBINATIONS)]
    found = {frozenset(one.name for one in chosen): chosen for chosen in (_mixed(s, size) for s in shuffled)}
    return list(found.values())[:COMBINATIONS]


def combined_prompts(method: Method, members: Sequence[ConceptSpec], family: str, count: int) -> Prompted:
    """`count` prompts that name all of `members`: "<rex> dog and <tom> cat on the beach"."""
    called = " and ".join(method.prompt_name(one.name, one.class_noun) for one in members)
    said = " and ".join(with_article(one.class_noun) for one in members if one.class_noun)
    places = list(islice(cycle(_SETTINGS[family]), count))
    return Prompted([f"{called} {place}" for place in places], [f"{said} {place}".strip() for place in places])


def _mixed(shuffled: Sequence[ConceptSpec], size: int) -> tuple[ConceptSpec, ...]:
    """The first of every noun before the second of any."""
    seen: list[str | None] = []
    turns = []
    for one in shuffled:
        turns.append(seen.count(one.class_noun))
        seen.append(one.class_noun)
    ranked = sorted(zip(turns, range(len(turns)), strict=True))
    return tuple(shuffled[place] for _, place in ranked[:size])
