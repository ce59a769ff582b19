"""Captions of diverse things, in words that a base knows: for what a method must learn about the base as a whole."""

from collections.abc import Callable, Sequence

import numpy as np

from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.looks import COLOURS, PATTERNS
from mnemon.world.things import NOUNS

MORE_THINGS = """
dog cat horse bird elephant bear sheep cow fish butterfly man woman child doctor farmer singer car bus train
bicycle boat airplane truck house castle church bridge tower tree flower forest mountain river island chair
table sofa lamp clock mirror book guitar piano camera phone laptop shoe hat jacket dress backpack umbrella cup
bottle plate bowl pizza cake apple banana bread cheese robot balloon kite statue painting
"""
MORE_QUALITIES = "old new small large wooden broken shiny dark bright beautiful wet dusty"
THINGS = tuple(dict.fromkeys([*NOUNS, *MORE_THINGS.split()]))
QUALITIES = tuple(dict.fromkeys([*COLOURS, *PATTERNS, *MORE_QUALITIES.split()]))
PLACES = tuple(
    dict.fromkeys(
        (*BACKGROUNDS, "in the city", "in a field", "at night", "on the street", "in the kitchen", "near the water",
         "in the mountains", "under the sky", "at sunset", "in a museum", "in the rain", "on the wall")
    )
)  # fmt: skip
OPENINGS = ("", "a photo of ", "a picture of ", "a drawing of ", "a close view of ")


def diverse_captions(known: Callable[[Sequence[str]], list[str]], count: int, seed: int) -> list[str]:
    """`count` captions like "a photo of a wooden clock at night", of words that `known` (`Base.single_token_words`) lets pass.

    Raises:
        ValueError: the base knows none of the things.
    """
    rng = np.random.default_rng((seed, 41))
    parts = _known_parts(known)
    return [_caption(*(str(rng.choice(words)) for words in parts)) for _ in range(count)]


def captions_of_two(known: Callable[[Sequence[str]], list[str]], count: int, seed: int) -> list[str]:
    """`count` captions like "a photo of a wooden clock and a dog at night", as `diverse_captions`."""
    rng = np.random.default_rng((seed, 42))
    openings, qualities, things, places = _known_parts(known)
    found = []
    for _ in range(count):
        one, other = (_thing(str(rng.choice(qualities)), str(rng.choice(things))) for _ in range(2))
        found.append(f"{rng.choice(openings)}{one} and {other} {rng.choice(places)}".strip())
    return found


def _known_parts(known: Callable[[Sequence[str]], list[str]]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Openings, qualities, things and places, the empty one among all but the things."""
    things, qualities = known(THINGS), ["", *known(QUALITIES)]
    if not things:
        raise ValueError("the base knows none of the words that captions are made of")
    places = ["", *(place for place in PLACES if known(place.split()) == place.split())]
    openings = [opening for opening in OPENINGS if known(opening.split()) == opening.split()]
    return openings, qualities, things, places


def _caption(opening: str, quality: str, thing: str, place: str) -> str:
    return f"{opening}{_thing(quality, thing)} {place}".strip()


def _thing(quality: str, thing: str) -> str:
    words = f"{quality} {thing}".strip()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
