"""The fixed prompts that concepts and the base are scored on, and the same prompts in words CLIP knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import numpy as np

from mnemon.errors import MnemonError
from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.captions import OPENINGS, describe, with_article
from mnemon.world.looks import palette_look

Kind = Literal["thing", "style"]
"""An object, or a style: a way of painting everything."""
SIZES = (2, 3, 4)
"""How many concepts a prompt names together."""
COMBINATIONS = 4  # of each size


@dataclass(frozen=True)
class PromptSet:
    """`templates` have one `{}` for the concept; `control` are prompts without any concept; `places` are where
    several concepts are set together."""

    templates: tuple[str, ...]
    control: tuple[str, ...]
    places: tuple[str, ...]


@dataclass(frozen=True)
class EvalPrompts:
    """Prompts, and for each the same in words that a text encoder without concept tokens knows: "a dog"."""

    prompts: list[str]
    words: list[str]


def concept_prompts(
    prompt_name: str,
    class_noun: str | None,
    prompt_set: PromptSet,
    count: int,
    *,
    kind: Kind = "thing",
    templates: Sequence[str] = (),
) -> EvalPrompts:
    """`count` evaluation prompts of a concept, every template in turn.

    A style is asked for on the objects of the control prompts: "a red mug on the beach in <ink> style".

    Args:
        prompt_name: what prompts call the concept: "<rex> dog".
        templates: prompts of the concept's own with one `{}`, in place of those of the set.
    """
    if templates:
        prompts = [template.format(prompt_name) for template in templates]
        words = [template.format(class_noun or "") for template in templates]
    elif kind == "style":
        words = list(prompt_set.control)
        prompts = [f"{scene} in {prompt_name} style" for scene in words]
    else:
        prompts = [template.format(prompt_name) for template in prompt_set.templates]
        words = [template.format(with_article(class_noun) if class_noun else "") for template in prompt_set.templates]
    return _repeated(prompts, words, count)


def control_prompts(prompt_set: PromptSet) -> EvalPrompts:
    """The control prompts, which name no concept."""
    return EvalPrompts(list(prompt_set.control), list(prompt_set.control))


def combined_prompts(
    prompt_names: Mapping[str, str], class_nouns: Mapping[str, str | None], prompt_set: PromptSet, count: int
) -> dict[tuple[str, ...], EvalPrompts]:
    """For each of the `combinations` of 2, 3 and 4 concepts `count` prompts that name all of them: "<rex> dog and <tom>
    cat on the beach". Both mappings are by the concepts' names."""
    combined = {}
    for chosen in (chosen for size in SIZES for chosen in combinations(class_nouns, size)):
        names = " and ".join(prompt_names[name] for name in chosen)
        words = " and ".join(with_article(noun) for name in chosen if (noun := class_nouns[name]))
        places = prompt_set.places
        combined[chosen] = _repeated([f"{names} {at}" for at in places], [f"{words} {at}" for at in places], count)
    return combined


def combinations(class_nouns: Mapping[str, str | None], size: int) -> list[tuple[str, ...]]:
    """Up to four sets of `size` of these concepts (name -> class noun), of different nouns where there are enough.

    They depend on which concepts there are and not on the order in which they were learned.
    """
    names = sorted(class_nouns)
    if len(names) < size:
        return []
    rng = np.random.default_rng((size, len(names), 83))
    shuffled = [[names[place] for place in rng.permutation(len(names))] for _ in range(8 * COMBINATIONS)]
    chosen = {frozenset(mixed): mixed for mixed in (_mixed(order, class_nouns, size) for order in shuffled)}
    return list(chosen.values())[:COMBINATIONS]


def prompt_set(name: str) -> PromptSet:
    """A set of `PROMPTS`.

    Raises:
        MnemonError: there is none of this name.
    """
    if name not in PROMPTS:
        raise MnemonError(f"There are no evaluation prompts '{name}': choose from {', '.join(PROMPTS)}.")
    return PROMPTS[name]


def _mixed(names: Sequence[str], class_nouns: Mapping[str, str | None], size: int) -> tuple[str, ...]:
    """The first of every noun before the second of any."""
    nouns = [class_nouns[name] for name in names]
    turns = [nouns[:place].count(noun) for place, noun in enumerate(nouns)]
    return tuple(names[place] for place in sorted(range(len(names)), key=turns.__getitem__)[:size])


def _repeated(prompts: Sequence[str], words: Sequence[str], count: int) -> EvalPrompts:
    tidy = [" ".join(text.split()) for text in words]
    return EvalPrompts(list(islice(cycle(prompts), count)), list(islice(cycle(tidy), count)))


def _world() -> PromptSet:
    """Eight backgrounds with the openings in turn; sixteen objects in named colours as control prompts."""
    rng = np.random.default_rng(7)
    places = list(BACKGROUNDS)[:8]
    templates = tuple(f"{OPENINGS[i % len(OPENINGS)]}{{}} {place}" for i, place in enumerate(places))
    control = tuple(
        f"{OPENINGS[i % len(OPENINGS)]}{describe(palette_look(rng), accent=False)} {places[i % 8]}" for i in range(16)
    )
    return PromptSet(templates, control, ("on the beach", "in the meadow", "in the snow", "in the city"))


def _photographs() -> PromptSet:
    scenes = (
        "in the snow", "on the beach", "in the jungle", "on a cobblestone street", "on a wooden floor", "in a garden",
        "in front of a mountain", "in front of the Eiffel Tower", "on top of a pink cushion", "in a busy market",
        "on a kitchen table", "at night under street lights", "in autumn leaves", "next to a river", "in a bookshop",
        "on a white background",
    )  # fmt: skip
    things = (
        "a red bicycle leaning on a wall", "a bowl of fruit on a table", "a city street in the rain", "a steam train",
        "a portrait of an old fisherman", "two children playing football", "a lighthouse at sunset", "a grey horse",
        "a plate of spaghetti", "a sailing boat on a lake", "a bedroom with a large window", "a vase of tulips",
        "a snowy mountain village", "a black cat on a sofa", "a yellow taxi in traffic", "a desert with a lone tree",
    )  # fmt: skip
    return PromptSet(
        tuple(f"a photo of {{}} {scene}" for scene in scenes),
        tuple(f"a photo of {thing}" for thing in things),
        ("on the beach", "in a garden", "in the snow", "on a wooden floor"),
    )


PROMPTS: dict[str, PromptSet] = {"world": _world(), "photographs": _photographs()}
