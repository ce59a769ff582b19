"""How a thing looks: its colours, pattern, accent and proportions.

Palette looks have colours with names, which captions can say. Free looks have colours off the palette, which no
caption names: concepts are free looks, so that nothing but their images tells how they look.
"""

import colorsys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mnemon.world.things import NOUNS, Shape

RGB = tuple[float, float, float]  # each 0..1

COLOURS: dict[str, RGB] = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.97, 0.52, 0.08),
    "yellow": (0.97, 0.87, 0.18),
    "green": (0.16, 0.62, 0.20),
    "teal": (0.15, 0.74, 0.72),
    "blue": (0.14, 0.30, 0.85),
    "purple": (0.50, 0.18, 0.68),
    "pink": (0.97, 0.56, 0.76),
    "white": (0.95, 0.95, 0.95),
    "black": (0.13, 0.13, 0.15),
}
PATTERNS: tuple[str, ...] = ("plain", "striped", "spotted", "checked", "banded")


@dataclass(frozen=True)
class Look:
    """One appearance. Colours are RGB 0..1; `angle` in degrees; `scale` multiplies the pattern's period.

    `colour` and `accent` are palette names, or None where the colour has no name. `second` is the pattern's other
    colour, `trim` the accent's. `accent` None with `trim` set means an accent that captions do not name.
    """

    noun: str
    body: RGB
    second: RGB
    trim: RGB
    pattern: str = "plain"
    angle: float = 0.0
    scale: float = 1.0
    shape: Shape = (0.0, 0.0, 0.0, 0.0)
    colour: str | None = None
    accent: str | None = None


def palette_look(rng: np.random.Generator, noun: str | None = None) -> Look:
    """A thing in named colours, jittered a little; half of them with a named accent."""
    colour = str(rng.choice(list(COLOURS)))
    accent = str(rng.choice([name for name in COLOURS if name != colour])) if rng.random() < 0.5 else None
    body = _jitter(rng, COLOURS[colour])
    trim = _jitter(rng, COLOURS[accent]) if accent else _shade(body, -0.35)
    return Look(
        noun=noun or str(rng.choice(NOUNS)),
        body=body,
        second=_contrast(body),
        trim=trim,
        pattern=str(rng.choice(PATTERNS)),
        angle=float(rng.choice([0.0, 90.0]) + rng.normal(0, 6)),
        scale=float(rng.uniform(0.9, 1.15)),
        shape=_shape(rng, 0.6),
        colour=colour,
        accent=accent,
    )


def free_look(rng: np.random.Generator, noun: str | None = None) -> Look:
    """A thing in colours of its own, at least a little away from every named one."""
    body = _off_palette(rng)
    return Look(
        noun=noun or str(rng.choice(NOUNS)),
        body=body,
        second=_far_from(rng, body),
        trim=_far_from(rng, body),
        pattern=str(rng.choice(PATTERNS)),
        angle=float(rng.uniform(0, 180)),
        scale=float(rng.uniform(0.85, 1.25)),
        shape=_shape(rng, 1.0),
    )


def neighbour(look: Look, rng: np.random.Generator, distance: float) -> Look:
    """Another thing of the same noun, `distance` 0 (the same) to 1 (as far as any free look of that noun)."""
    other = free_look(rng, look.noun)

    def blend(a: tuple[float, ...], b: tuple[float, ...]) -> Any:
        return tuple((1 - distance) * x + distance * y for x, y in zip(a, b, strict=True))

    return replace(
        look,
        body=blend(look.body, other.body),
        second=blend(look.second, other.second),
        trim=blend(look.trim, other.trim),
        pattern=other.pattern if distance > 0.5 else look.pattern,
        scale=(1 - distance) * look.scale + distance * other.scale,
        shape=blend(look.shape, other.shape),
        colour=None,
        accent=None,
    )


def _shape(rng: np.random.Generator, spread: float) -> Shape:
    a, b, c, d = rng.uniform(-spread, spread, 4).tolist()
    return (a, b, c, d)


def _jitter(rng: np.random.Generator, colour: RGB, spread: float = 0.035) -> RGB:
    r, g, b = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 1).tolist()
    return (r, g, b)


def _shade(colour: RGB, amount: float) -> RGB:
    """Towards white (`amount` > 0) or black (< 0)."""
    target = 1.0 if amount > 0 else 0.0
    r, g, b = (channel + (target - channel) * abs(amount) for channel in colour)
    return (r, g, b)


def _contrast(colour: RGB) -> RGB:
    luminance = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    return _shade(colour, -0.6 if luminance > 0.62 else 0.72)


def _free_colour(rng: np.random.Generator) -> RGB:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 1.0), rng.uniform(0.3, 0.98))


def _distance(a: RGB, b: RGB) -> float:
    return float(np.linalg.norm(np.array(a) - np.array(b)))


def _off_palette(rng: np.random.Generator) -> RGB:
    while True:
        colour = _free_colour(rng)
        if min(_distance(colour, named) for named in COLOURS.values()) > 0.18:
            return colour


def _far_from(rng: np.random.Generator, other: RGB) -> RGB:
    while True:
        colour = _free_colour(rng)
        if _distance(colour, other) > 0.45:
            return colour
