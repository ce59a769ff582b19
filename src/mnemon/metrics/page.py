"""Pieces of the report's HTML: escaped text, inlined pictures, tables, a chart. Nothing is loaded from outside."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from mnemon.metrics.matrix import ScoreMatrix, retention_by_concept

Pictures = Sequence[Image.Image]
_SIDE = 256  # pixels; larger pictures are made smaller
_MID, _HIGH = 0.45, 0.75  # shades from which on a cell's text changes colour, on a dark and on a light page


def picture(image: Image.Image, alt: str) -> str:
    """An <img> that holds its picture: PNG where it is small, else JPEG."""
    shown = image.convert("RGB")
    shown.thumbnail((_SIDE, _SIDE))
    kind = "png" if max(shown.size) <= 128 else "jpeg"
    buffer = BytesIO()
    shown.save(buffer, kind, quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'


def cell(pictures: Pictures, alt: str) -> str:
    one = " one" if len(pictures) == 1 else ""
    return f'<div class="cell{one}">{"".join(picture(image, alt) for image in pictures)}</div>'


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def heat_table(matrix: ScoreMatrix, caption: str, ceilings: Mapping[str, float | None]) -> str:
    """The matrix as a table coloured over 0..1; a concept's first score is framed; below it what was kept."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in matrix.names)
    body = []
    for t, state in enumerate(matrix.states):
        cells = "".join(_heat_cell(matrix, t, j) for j in range(len(matrix.names)))
        body.append(f'<tr><th scope="row">after {state}</th>{cells}</tr>')
    kept = "".join(f"<td>{_percent(value)}</td>" for value in retention_by_concept(matrix))
    foot = f'<tr><th scope="row">kept</th>{kept}</tr>'
    if ceilings:
        tops = "".join(f"<td>{number(ceilings.get(name), 2)}</td>" for name in matrix.names)
        foot += f'<tr><th scope="row">photos</th>{tops}</tr>'
    return (
        f'<div class="card wide"><table class="heat"><caption>{escape(caption)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _heat_cell(matrix: ScoreMatrix, t: int, j: int) -> str:
    value = float(matrix.values[t, j])
    if math.isnan(value):
        return "<td></td>"
    shade = min(max(value, 0.0), 1.0) ** 2
    depth = " high" if shade >= _HIGH else " mid" if shade >= _MID else ""
    classes = f"value{depth}" + (" new" if _is_new(matrix, t, j) else "")
    return f'<td class="{classes}" style="--v:{shade:.3f}">{number(value, 2)}</td>'


def _is_new(matrix: ScoreMatrix, t: int, j: int) -> bool:
    """Whether row t holds the first score of concept j."""
    return bool(np.isnan(matrix.values[:t, j]).all() and not math.isnan(matrix.values[t, j]))


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def numbers_table(head: Sequence[str], rows: Sequence[tuple[str, str, Sequence[str], int | None]]) -> str:
    """A plain table. Each row: its name, a word of explanation, its cells, and which of them is best, if one is."""
    lines = []
    for name, meaning, cells, best in rows:
        marked = "".join(f"<td{' class=best' if i == best else ''}>{escape(text)}</td>" for i, text in enumerate(cells))
        explained = f"<small>{escape(meaning)}</small>" if meaning else ""
        lines.append(f'<tr><th scope="row">{escape(name)}{explained}</th>{marked}</tr>')
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="card wide"><table class="numbers"><thead><tr><td></td>{columns}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def curves(series: Mapping[str, Sequence[tuple[int, float]]], label: str) -> str:
    """A line chart as inline SVG: name -> points (state, value). The upright axis begins at 0."""
    width, height, left, bottom, right = 640, 300, 44, 34, 130
    points = [point for line in series.values() for point in line if not math.isnan(point[1])]
    if not points:
        return ""
    first, final = min(x for x, _ in points), max(x for x, _ in points)
    top = max(1.0, *(y for _, y in points)) * 1.04

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - first) / max(final - first, 1) * (width - left - right)
        return round(across, 1), round((height - bottom) * (1 - y / top) + 8, 1)

    parts = [_axis(place, first, final, top)]
    for index, (name, line) in enumerate(series.items()):
        colour = f"var(--series-{index % 6})"
        known = [place(x, max(y, 0.0)) for x, y in line if not math.isnan(y)]
        path = " ".join(f"{x},{y}" for x, y in known)
        parts.append(f'<polyline class="curve" style="stroke:{colour}" points="{path}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3.5" style="fill:{colour}"/>' for x, y in known]
        parts.append(f'<text x="{width - right + 26}" y="{30 + 20 * index}">{escape(name)}</text>')
        parts.append(f'<circle cx="{width - right + 16}" cy="{26 + 20 * index}" r="4" style="fill:{colour}"/>')
    return (
        f'<figure class="card" style="margin-inline:0"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg><figcaption>{escape(label)}</figcaption></figure>'
    )


def _axis(place: Callable[[float, float], tuple[float, float]], first: int, final: int, top: float) -> str:
    parts = []
    for tick in np.arange(0, top, 0.25):
        (x0, y), (x1, _) = place(first, float(tick)), place(final, float(tick))
        parts.append(f'<line class="grid" x1="{x0}" y1="{y}" x2="{x1}" y2="{y}"/>')
        parts.append(f'<text x="{x0 - 8}" y="{y + 4}" text-anchor="end">{100 * tick:.0f} %</text>')
    for state in np.unique(np.linspace(first, final, min(final - first + 1, 12)).round().astype(int)):
        x, y = place(int(state), 0)
        parts.append(f'<text x="{x}" y="{y + 20}" text-anchor="middle">{state}</text>')
    return "".join(parts)
