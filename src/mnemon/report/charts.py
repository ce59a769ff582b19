"""Line charts: the geometry of an inline SVG, and the curves of a benchmark's runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemon.evaluation.matrix import ScoreMatrix, just_learned, last
from mnemon.evaluation.run_record import RunRecord

Runs = Mapping[str, Sequence[RunRecord]]
Series = Mapping[str, Sequence[tuple[int, float]]]
"""Name of a line -> points (step, value); nan leaves a point out."""

LEFT, BOTTOM, TOP = 44, 34, 8  # pixels around the plot


def line_chart(series: Series, label: str, percent: bool = True) -> dict[str, Any] | None:
    """What the macro `line_chart` draws, in pixels: the plot goes from `left` to `right`, where the key begins; ticks
    are (pixel, text). The upright axis begins at 0; it is in percent, or plain. None where there is no point."""
    points = [point for line in series.values() for point in line if not math.isnan(point[1])]
    if not points:
        return None
    key = 46 + 9 * max(len(name) for name in series)  # room for the names
    right, height = 510, max(300, 50 + 20 * len(series))
    first, final = min(x for x, _ in points), max(x for x, _ in points)
    top = max(1.0, *(y for _, y in points)) * 1.04

    def across(x: int) -> float:
        return round(LEFT + (x - first) / max(final - first, 1) * (right - LEFT), 1)

    def upright(y: float) -> float:
        return round((height - BOTTOM) * (1 - y / top) + TOP, 1)

    steps = np.unique(np.linspace(first, final, min(final - first + 1, 12)).round().astype(int)).tolist()
    ticks = np.arange(0, top, 0.25).tolist()
    return {
        "label": label,
        "width": right + key,
        "height": height,
        "left": LEFT,
        "right": right,
        "radius": 3.5 if final - first < 20 else 2,
        "x_ticks": [(across(step), str(step)) for step in steps],
        "y_ticks": [(upright(tick), f"{100 * tick:.0f} %" if percent else f"{tick:.2f}") for tick in ticks],
        "lines": {
            name: [(across(x), upright(max(y, 0.0))) for x, y in line if not math.isnan(y)]
            for name, line in series.items()
        },
    }


def over_index(runs: Runs) -> list[dict[str, Any] | None]:
    """For each method, how well the j-th concept was learned and what is left of it at the end, mean over runs."""
    lines: dict[str, Callable[[ScoreMatrix], NDArray[np.float64]]] = {"just learned": just_learned, "at the end": last}
    return [
        line_chart(
            {name: _mean_line(of_method, line) for name, line in lines.items()},
            f"{method}: identity alignment by place in the sequence",
            percent=False,
        )
        for method, of_method in runs.items()
    ]


def over_time(runs: Runs) -> dict[str, Any] | None:
    """Mean identity alignment of all concepts so far, at the points, one line a method."""
    lines = {method: _average_line(of_method) for method, of_method in runs.items()}
    return line_chart(lines, "Mean identity alignment of all concepts so far, after each scored point", percent=False)


def whole_rows(record: RunRecord) -> list[int]:
    """After which concepts all of those learned so far were scored."""
    values = record.matrix("identity_alignment").values
    return [t for t in range(1, len(values) + 1) if not np.isnan(values[t - 1, :t]).any()]


def _mean_line(
    runs: Sequence[RunRecord], line: Callable[[ScoreMatrix], NDArray[np.float64]]
) -> list[tuple[int, float]]:
    """Points (place, mean over the runs that have it)."""
    values = np.stack([line(record.matrix("identity_alignment")) for record in runs])
    known = ~np.isnan(values)
    means = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
    return [(place + 1, float(means[place])) for place in range(len(means)) if known[:, place].any()]


def _average_line(runs: Sequence[RunRecord]) -> list[tuple[int, float]]:
    """Points (t, mean over runs and concepts 1..t) where whole rows were scored."""
    rows = np.stack([record.matrix("identity_alignment").values for record in runs])
    return [(t, float(rows[:, t - 1, :t].mean())) for t in whole_rows(runs[0])]
