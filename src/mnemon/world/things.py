"""The outlines of the world's things: twelve nouns, each a few polygons in a unit square.

A thing is drawn in its own coordinates, x to the right and y down, both about -1..1. A part is a role and a
polygon; later parts cover earlier ones. Roles say how a part is coloured: the body carries the pattern, the trim is
the accent, "dark" and "light" are eyes, wheels and windows. Four shape parameters in -1..1 bend the proportions, so
that two things of one noun differ in outline too.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (corners, 2)
Part = tuple[str, Points]
Shape = tuple[float, float, float, float]

ROLES = ("body", "trim", "dark", "light")


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _ellipse(x: float, y: float, width: float, height: float, start: float = 0.0, stop: float = 360.0) -> Points:
    """Points on an ellipse with half-axes `width` and `height`, from `start` to `stop` degrees (clockwise)."""
    angle = np.radians(np.linspace(start, stop, 28))
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


def _ring(x: float, y: float, width: float, height: float, thickness: float) -> Points:
    outer, inner = _ellipse(x, y, width, height), _ellipse(x, y, width - thickness, height - thickness)
    return np.concatenate([outer, inner[::-1]])


def _mug(s: Shape) -> list[Part]:
    width, height, handle = 0.6 + 0.12 * s[0], 0.72 + 0.12 * s[1], 0.38 + 0.1 * s[2]
    return [
        ("trim", _ring(width, 0.02, handle, handle * 1.15, 0.16)),
        ("body", _polygon((-width - 0.1, -height), (width, -height), (width - 0.06, height), (-width - 0.04, height))),
        ("trim", _box(-width - 0.12, -height - 0.1, width + 0.02, -height + 0.1)),
    ]


def _cat(s: Shape) -> list[Part]:
    ear, belly, head = 0.42 + 0.14 * s[0], 0.5 + 0.1 * s[1], 0.42 + 0.05 * s[3]
    tail = 0.3 + 0.15 * s[2]
    return [
        ("body", _polygon((0.3, 0.9), (0.95, 0.75), (0.95, 0.1 - tail), (0.75, 0.1 - tail), (0.75, 0.55), (0.3, 0.6))),
        ("body", _ellipse(0, 0.45, belly, 0.55)),
        ("body", _polygon((-head, -0.5), (-head + 0.04, -0.62 - ear), (-0.06, -0.72))),
        ("body", _polygon((head, -0.5), (head - 0.04, -0.62 - ear), (0.06, -0.72))),
        ("body", _ellipse(0, -0.42, head, 0.38)),
        ("trim", _box(-0.32, -0.12, 0.32, 0.06)),
        ("dark", _ellipse(-0.17, -0.46, 0.075, 0.1)),
        ("dark", _ellipse(0.17, -0.46, 0.075, 0.1)),
    ]


def _dog(s: Shape) -> list[Part]:
    leg, back, ear, tail = 0.5 + 0.1 * s[0], 0.3 + 0.06 * s[1], 0.42 + 0.12 * s[2], 0.35 + 0.15 * s[3]
    return [
        ("body", _polygon((0.7, -0.1), (0.98, -0.1 - tail), (0.86, -0.2 - tail), (0.5, -0.1))),
        ("body", _box(-0.55, 0.2, -0.25, 0.4 + leg)),
        ("body", _box(0.42, 0.2, 0.72, 0.4 + leg)),
        ("body", _ellipse(0.08, 0.15, 0.72, back + 0.06)),
        ("body", _ellipse(-0.55, -0.38, 0.36, 0.36)),
        ("body", _box(-1.05, -0.42, -0.6, -0.1)),
        ("trim", _ellipse(-0.38, -0.3, 0.15, ear)),
        ("dark", _ellipse(-1.0, -0.36, 0.09, 0.1)),
        ("dark", _ellipse(-0.66, -0.48, 0.07, 0.08)),
    ]


def _car(s: Shape) -> list[Part]:
    roof, cabin, wheel = -0.62 - 0.1 * s[0], 0.5 + 0.1 * s[1], 0.25 + 0.05 * s[2]
    slope = 0.24 + 0.12 * s[3]
    return [
        ("body", _polygon((-cabin, roof), (cabin - 0.1, roof), (cabin + slope, -0.1), (-cabin - slope, -0.1))),
        ("light", _polygon((-cabin + 0.06, roof + 0.14), (-0.06, roof + 0.14), (-0.06, -0.12), (-cabin - 0.1, -0.12))),
        ("light", _polygon((0.08, roof + 0.14), (cabin - 0.16, roof + 0.14), (cabin + 0.04, -0.12), (0.08, -0.12))),
        ("body", _box(-1.0, -0.12, 1.0, 0.42)),
        ("trim", _box(-1.05, 0.28, 1.05, 0.46)),
        ("dark", _ellipse(-0.55, 0.45, wheel, wheel)),
        ("dark", _ellipse(0.55, 0.45, wheel, wheel)),
        ("light", _ellipse(-0.55, 0.45, wheel * 0.4, wheel * 0.4)),
        ("light", _ellipse(0.55, 0.45, wheel * 0.4, wheel * 0.4)),
    ]


def _robot(s: Shape) -> list[Part]:
    head, width, arm, leg = 0.4 + 0.07 * s[0], 0.48 + 0.08 * s[1], 0.35 + 0.15 * s[2], 0.85 + 0.1 * s[3]
    return [
        ("trim", _box(-0.05, -1.1, 0.05, -0.8)),
        ("trim", _ellipse(0, -1.08, 0.12, 0.1)),
        ("body", _box(-head, -0.9, head, -0.25)),
        ("trim", _box(-width - 0.3, -0.12, -width, -0.12 + 2 * arm)),
        ("trim", _box(width, -0.12, width + 0.3, -0.12 + 2 * arm)),
        ("trim", _box(-0.38, 0.5, -0.1, leg + 0.1)),
        ("trim", _box(0.1, 0.5, 0.38, leg + 0.1)),
        ("body", _box(-width, -0.2, width, 0.6)),
        ("light", _box(-0.27, -0.72, -0.07, -0.52)),
        ("light", _box(0.07, -0.72, 0.27, -0.52)),
        ("dark", _box(-0.22, -0.42, 0.22, -0.34)),
    ]


def _house(s: Shape) -> list[Part]:
    width, roof, eaves, door = 0.7 + 0.1 * s[0], 0.75 + 0.15 * s[1], 0.2 + 0.08 * s[2], 0.0 + 0.25 * s[3]
    return [
        ("dark", _box(0.35, -0.95, 0.55, -0.3)),
        ("body", _box(-width, -0.2, width, 0.9)),
        ("trim", _polygon((-width - eaves, -0.15), (0, -0.2 - roof), (width + eaves, -0.15))),
        ("dark", _box(door - 0.16, 0.35, door + 0.16, 0.9)),
        ("light", _ellipse(0, -0.45, 0.15, 0.15)),
    ]


def _fish(s: Shape) -> list[Part]:
    height, tail, fin, length = 0.5 + 0.12 * s[0], 0.48 + 0.14 * s[1], 0.3 + 0.14 * s[2], 0.72 + 0.06 * s[3]
    return [
        ("trim", _polygon((0.45, 0.0), (1.05, -tail), (0.9, 0.0), (1.05, tail))),
        ("trim", _polygon((-0.3, -height + 0.1), (0.15, -height - fin), (0.35, -height + 0.16))),
        ("trim", _polygon((-0.2, height - 0.1), (0.15, height + fin * 0.7), (0.25, height - 0.14))),
        ("body", _ellipse(-0.2, 0, length, height)),
        ("light", _ellipse(-0.6, -0.12, 0.14, 0.14)),
        ("dark", _ellipse(-0.62, -0.12, 0.075, 0.085)),
    ]


def _tree(s: Shape) -> list[Part]:
    crown, height, trunk, lean = 0.62 + 0.1 * s[0], 0.62 + 0.1 * s[1], 0.16 + 0.04 * s[2], 0.14 * s[3]
    return [
        ("trim", _polygon((-trunk, 1.0), (trunk, 1.0), (trunk + lean, 0.0), (-trunk + lean, 0.0))),
        ("body", _ellipse(lean - 0.4, -0.1, crown * 0.75, height * 0.62)),
        ("body", _ellipse(lean + 0.4, -0.1, crown * 0.75, height * 0.62)),
        ("body", _ellipse(lean, -0.48, crown, height * 0.85)),
    ]


def _boat(s: Shape) -> list[Part]:
    mast, sail, hull, bow = -1.0 - 0.08 * s[0], 0.72 + 0.12 * s[1], 0.42 + 0.08 * s[2], 0.4 + 0.12 * s[3]
    return [
        ("dark", _box(-0.08, mast, 0.02, 0.4)),
        ("body", _polygon((0.06, mast + 0.06), (0.06, 0.22), (0.14 + sail, 0.22))),
        ("body", _polygon((-0.14, mast + 0.2), (-0.14, 0.22), (-0.2 - sail * 0.8, 0.22))),
        ("trim", _polygon((-1.0, 0.3), (1.05, 0.3), (1.05 - bow, 0.3 + hull + 0.12), (-1.0 + bow * 0.7, 0.42 + hull))),
    ]


def _bird(s: Shape) -> list[Part]:
    wing, beak, belly, tail = 0.4 + 0.08 * s[0], 0.34 + 0.12 * s[1], 0.46 + 0.07 * s[2], 0.5 + 0.15 * s[3]
    return [
        ("dark", _box(-0.2, 0.5, -0.12, 1.0)),
        ("dark", _box(0.1, 0.5, 0.18, 1.0)),
        ("body", _polygon((0.3, 0.0), (0.55 + tail, -0.25), (0.5 + tail, 0.15), (0.4, 0.4))),
        ("body", _ellipse(0.02, 0.2, 0.66, belly)),
        ("body", _ellipse(-0.45, -0.45, 0.36, 0.36)),
        ("trim", _polygon((-0.74, -0.6), (-0.76 - beak, -0.42), (-0.74, -0.28))),
        ("trim", _ellipse(0.2, 0.16, wing, 0.22)),
        ("dark", _ellipse(-0.52, -0.52, 0.08, 0.09)),
    ]


def _teapot(s: Shape) -> list[Part]:
    width, height, spout, lid = 0.6 + 0.07 * s[0], 0.5 + 0.08 * s[1], 0.22 + 0.12 * s[2], 0.4 + 0.08 * s[3]
    return [
        ("trim", _ring(0.62, 0.1, 0.42, 0.4, 0.15)),
        ("body", _polygon((-0.4, 0.5), (-1.12, 0.05 - spout), (-0.88, -0.08 - spout), (-0.35, 0.05))),
        ("body", _ellipse(0, 0.22, width, height)),
        ("trim", _ellipse(0, -0.24, lid, 0.16)),
        ("trim", _ellipse(0, -0.48, 0.14, 0.14)),
        ("dark", _box(-0.4, 0.68, 0.4, 0.8)),
    ]


def _rocket(s: Shape) -> list[Part]:
    width, fin, nose, window = 0.36 + 0.06 * s[0], 0.42 + 0.12 * s[1], 0.6 + 0.12 * s[2], 0.15 + 0.03 * s[3]
    return [
        ("trim", _polygon((-width, 0.1), (-width - fin, 0.85), (-width + 0.1, 0.65))),
        ("trim", _polygon((width, 0.1), (width + fin, 0.85), (width - 0.1, 0.65))),
        ("dark", _polygon((-0.22, 0.65), (0.22, 0.65), (0.3, 0.95), (-0.3, 0.95))),
        ("body", _box(-width, -0.5, width, 0.7)),
        ("trim", _polygon((-width, -0.48), (0, -0.48 - nose), (width, -0.48))),
        ("light", _ellipse(0, -0.12, window + 0.05, window + 0.05)),
    ]


OUTLINES: dict[str, Callable[[Shape], list[Part]]] = {
    "mug": _mug,
    "cat": _cat,
    "dog": _dog,
    "car": _car,
    "robot": _robot,
    "house": _house,
    "fish": _fish,
    "tree": _tree,
    "boat": _boat,
    "bird": _bird,
    "teapot": _teapot,
    "rocket": _rocket,
}
NOUNS: tuple[str, ...] = tuple(OUTLINES)
