"""Mean and confidence of a number over several runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The mean of a number over runs, and where the mean of many runs lies with 95 % confidence.

    Attributes:
        low, high: mean ± t · s/√runs, Student's t interval of the mean; None for fewer than two runs.
        runs: with the number.
    """

    mean: float | None
    low: float | None
    high: float | None
    runs: int


def interval(values: Sequence[float | None]) -> Interval:
    """Of the values that are known.

    Runs are taken as independent draws from a normal distribution. Those of one sequence share its concepts, so the
    interval holds for other orders and seeds, not for other concepts.
    """
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return Interval(None, None, None, 0)
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(len(known) - 1) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return Interval(mean, mean - half, mean + half, len(known))


@cache
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """t such that Student's t with `freedom` degrees of freedom lies in -t..t with probability `confidence`."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t), the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):  # of the cosine in `term`
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
