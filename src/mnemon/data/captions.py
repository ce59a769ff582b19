"""Captions of diverse things, in single-token words of a base: prompts for a calibration set of the base as a whole."""

from collections.abc import Callable, Sequence

import numpy as np

from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.captions import with_article
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


SingleTokenWords = Callable[[Sequence[str]], list[str]]
"""`Base.single_token_words`."""


def diverse_captions(single_token_words: SingleTokenWords, count: int, seed: int) -> list[str]:
    """`count` captions like "a photo of a wooden clock at night", of the base's single-token words.

    Raises:
        ValueError: none of the things is a single token of the base.
    """
    rng = np.random.default_rng((seed, 41))
    vocabulary = _vocabulary(single_token_words)
    captions = []
    for _ in range(count):
        opening, quality, thing, place = (str(rng.choice(words)) for words in vocabulary)
        captions.append(f"{opening}{_thing(quality, thing)} {place}".strip())
    return captions


def captions_of_two(single_token_words: SingleTokenWords, count: int, seed: int) -> list[str]:
    """`count` captions like "a photo of a wooden clock and a dog at night", as `diverse_captions`."""
    rng = np.random.default_rng((seed, 42))
    openings, qualities, things, places = _vocabulary(single_token_words)
    captions = []
    for _ in range(count):
        one, other = (_thing(str(rng.choice(qualities)), str(rng.choice(things))) for _ in range(2))
        captions.append(f"{rng.choice(openings)}{one} and {other} {rng.choice(places)}".strip())
    return captions


def captions_about(single_token_words: SingleTokenWords, prompt_name: str, count: int, is_style: bool) -> list[str]:
    """`count` captions of a concept, by itself and beside another thing in a place ("<rex> dog and a red kite at
    night"), or of things in a style ("a red kite in <ink> style at night"). None of them is an evaluation prompt.

    Raises:
        ValueError: as `diverse_captions`.
    """
    rng = np.random.default_rng(43)
    openings, qualities, things, places = _vocabulary(single_token_words)
    captions = []
    for index in range(count):
        opening, place = rng.choice(openings), rng.choice(places)
        thing = _thing(str(rng.choice(qualities)), str(rng.choice(things)))
        beside = f"{thing} in {prompt_name} style {place}" if is_style else f"{prompt_name} and {thing} {place}"
        captions.append(f"{opening}{beside if is_style or index % 2 else prompt_name}".strip())
    return captions


def _vocabulary(single_token_words: SingleTokenWords) -> tuple[list[str], list[str], list[str], list[str]]:
    """Openings, qualities, things and places, with the empty string among all but the things."""
    things, qualities = single_token_words(THINGS), ["", *single_token_words(QUALITIES)]
    if not things:
        raise ValueError("the base knows none of the words that captions are made of")

    def known(phrase: str) -> bool:
        return single_token_words(phrase.split()) == phrase.split()

    return [phrase for phrase in OPENINGS if known(phrase)], qualities, things, ["", *filter(known, PLACES)]


def _thing(quality: str, thing: str) -> str:
    return with_article(f"{quality} {thing}".strip())
