"""Captions of scenes, in several templates and at any detail: attributes are left out at random."""

import numpy as np

from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.looks import COLOURS, PATTERNS, Look
from mnemon.world.scenes import Scene
from mnemon.world.things import NOUNS

OPENINGS: tuple[str, ...] = ("", "a photo of ", "a picture of ", "a drawing of ")


def describe(look: Look, *, colour: bool = True, pattern: bool = True, accent: bool = True) -> str:
    """ "a red striped mug with blue trim": each attribute only if wanted and if the look has a name for it."""
    words = []
    if colour and look.colour:
        words.append(look.colour)
    if pattern:
        words.append(look.pattern)
    words.append(look.noun)
    if accent and look.accent:
        words += ["with", look.accent, "trim"]
    return with_article(" ".join(words))


def with_article(thing: str) -> str:
    """ "red mug" -> "a red mug", "orange mug" -> "an orange mug"."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random caption that is true of `scene`; "plain" stands now and then for things without a pattern."""
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    things = [
        describe(look, colour=rng.random() < 0.85, pattern=rng.random() < 0.8, accent=rng.random() < 0.5)
        for look in scene.looks
    ]
    text = opening + " and ".join(things)
    if rng.random() < 0.88:
        text += f" {scene.background}"
    if scene.style is not None:
        text += " in an odd style"
    return text


def vocabulary() -> tuple[str, ...]:
    """Every word a caption can hold, sorted."""
    text = " ".join([*OPENINGS, *BACKGROUNDS, *COLOURS, *PATTERNS, *NOUNS, "a an and with trim in odd style the of"])
    return tuple(sorted(set(text.split())))
