"""Pieces of the report's HTML: escaped text, inlined images, tables, a chart. Nothing is loaded from outside."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnemon.evaluation.matrix import ScoreMatrix, retention_by_concept

Images = Sequence[Image.Image]
_SIDE = 256  # pixels; larger images are made smaller
_MID, _HIGH = 0.45, 0.75  # shades from which on a cell's text changes colour, on a dark and on a light page


def document(
    title: str, introduction: str, facts: Mapping[str, str], sections: Sequence[str], style: str, script: str = ""
) -> str:
    """A whole page of sections, which are HTML; title, introduction and facts are text."""
    listed = "".join(f"<li><b>{escape(name)}</b>{escape(text)}</li>" for name, text in facts.items())
    run = f"<script>\n{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<header>"
        f'<h1>{escape(title)}</h1><p>{escape(introduction)}</p><ul class="facts">{listed}</ul></header>\n'
        f"<main>\n{chr(10).join(sections)}\n</main>\n{run}</body>\n</html>\n"
    )


def img_tag(image: Image.Image, alt: str) -> str:
    """An <img> that holds its image: PNG where it is small, else WebP."""
    shown = image.convert("RGB")
    shown.thumbnail((_SIDE, _SIDE))
    kind = "png" if max(shown.size) <= 128 else "webp"
    buffer = BytesIO()
    shown.save(buffer, kind, quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{shown.width}" height="{shown.height}"'
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}" loading="lazy" {size}>'


def merged(title: str, body: str, opened: bool = False) -> str:
    """HTML under a title (text) that opens and closes it."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{body}</details>"


def cell(images: Images, alt: str) -> str:
    one = " one" if len(images) == 1 else ""
    return f'<div class="cell{one}">{"".join(img_tag(image, alt) for image in images)}</div>'


def number(value: float | None, digits: int = 3) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def heat_table(matrix: ScoreMatrix, caption: str, ceilings: Mapping[str, float | None]) -> str:
    """The matrix as a table coloured over 0..1; a concept's first score is framed; below it what was kept."""
    rows = [f"after {state}" for state in matrix.states]
    return heat(rows, matrix.names, matrix.values, caption, matrix.first, heat_foot(matrix, ceilings))


def heat_foot(matrix: ScoreMatrix, ceilings: Mapping[str, float | None]) -> dict[str, Sequence[str]]:
    """What was kept of each concept, and what photos of it reach against one another."""
    foot: dict[str, Sequence[str]] = {"kept": [_percent(value) for value in retention_by_concept(matrix)]}
    if ceilings:
        foot["photos"] = [number(ceilings.get(name), 2) for name in matrix.names]
    return foot


def heat(
    rows: Sequence[str],
    columns: Sequence[str],
    values: NDArray[np.float64],
    caption: str,
    framed: NDArray[np.bool_] | None = None,
    foot: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Numbers (rows, columns) as a table coloured over 0..1, the `framed` ones framed; nan leaves a cell empty."""
    frames = np.zeros(values.shape, np.bool_) if framed is None else framed
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = [
        "".join(_heat_cell(float(value), bool(frame)) for value, frame in zip(line, marks, strict=True))
        for line, marks in zip(values, frames, strict=True)
    ]
    body = "".join(_heat_row(name, cells) for name, cells in zip(rows, lines, strict=True))
    below = "".join(
        _heat_row(name, "".join(f"<td>{escape(text)}</td>" for text in texts)) for name, texts in (foot or {}).items()
    )
    dense = " dense" if len(columns) > 12 else ""
    return (
        f'<div class="card wide"><table class="heat{dense}"><caption>{escape(caption)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody><tfoot>{below}</tfoot></table></div>"
    )


def _heat_row(name: str, cells: str) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _heat_cell(value: float, framed: bool) -> str:
    if math.isnan(value):
        return "<td></td>"
    shade = min(max(value, 0.0), 1.0) ** 2
    depth = " high" if shade >= _HIGH else " mid" if shade >= _MID else ""
    classes = f"value{depth}" + (" new" if framed else "")
    return f'<td class="{classes}" style="--v:{shade:.3f}">{number(value, 2)}</td>'


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


def curves(series: Mapping[str, Sequence[tuple[int, float]]], label: str, percent: bool = True) -> str:
    """A line chart as inline SVG: name -> points (state, value). The upright axis begins at 0; it is in percent, or
    plain. From the seventh line on colours come again, with dashes."""
    right = 46 + 9 * max((len(name) for name in series), default=0)  # room for the names
    width, height, left, bottom = 510 + right, max(300, 50 + 20 * len(series)), 44, 34
    points = [point for line in series.values() for point in line if not math.isnan(point[1])]
    if not points:
        return ""
    first, final = min(x for x, _ in points), max(x for x, _ in points)
    top = max(1.0, *(y for _, y in points)) * 1.04

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - first) / max(final - first, 1) * (width - left - right)
        return round(across, 1), round((height - bottom) * (1 - y / top) + 8, 1)

    size = 3.5 if final - first < 20 else 2
    parts = [_axis(place, first, final, top, percent)]
    for index, (name, line) in enumerate(series.items()):
        colour = f"var(--series-{index % 6})"
        dashes = f' stroke-dasharray="{6 * (index // 6) - 4} 3"' if index >= 6 else ""
        known = [place(x, max(y, 0.0)) for x, y in line if not math.isnan(y)]
        key, height_of_key = width - right + 8, 26 + 20 * index
        for path in (known, [(key, height_of_key), (key + 24, height_of_key)]):
            parts.append(_line(path, f'style="stroke:{colour}"{dashes}'))
        parts += [f'<circle cx="{x}" cy="{y}" r="{size}" style="fill:{colour}"/>' for x, y in known]
        parts.append(f'<text x="{key + 30}" y="{height_of_key + 4}">{escape(name)}</text>')
    return (
        f'<figure class="card" style="margin-inline:0"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg><figcaption>{escape(label)}</figcaption></figure>'
    )


def _line(path: Sequence[tuple[float, float]], look: str) -> str:
    return f'<polyline class="curve" {look} points="{" ".join(f"{x},{y}" for x, y in path)}"/>'


def _axis(
    place: Callable[[float, float], tuple[float, float]], first: int, final: int, top: float, percent: bool
) -> str:
    parts = []
    for tick in np.arange(0, top, 0.25):
        (x0, y), (x1, _) = place(first, float(tick)), place(final, float(tick))
        text = f"{100 * tick:.0f} %" if percent else f"{tick:.2f}"
        parts.append(f'<line class="grid" x1="{x0}" y1="{y}" x2="{x1}" y2="{y}"/>')
        parts.append(f'<text x="{x0 - 8}" y="{y + 4}" text-anchor="end">{text}</text>')
    for state in np.unique(np.linspace(first, final, min(final - first + 1, 12)).round().astype(int)):
        x, y = place(int(state), 0)
        parts.append(f'<text x="{x}" y="{y + 20}" text-anchor="middle">{state}</text>')
    return "".join(parts)
