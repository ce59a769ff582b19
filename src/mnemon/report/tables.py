"""The report's sortable tables: one row a method, one column a figure, each with its formula at hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mnemon.evaluation.figures import FIGURES, Figure
from mnemon.evaluation.intervals import Interval
from mnemon.evaluation.numbers import Numbers, interval_of
from mnemon.report.page import number


@dataclass(frozen=True)
class Cell:
    """A number as shown, what stands small below it, and what it is sorted by."""

    value: float | None
    text: str
    small: str = ""


@dataclass(frozen=True)
class Column:
    """`figure` is the key in `FIGURES` whose formula is at hand in the head."""

    title: str
    figure: str
    better: str
    cells: Sequence[Cell]


def figure_columns(numbers: Mapping[str, Sequence[Numbers]], names: Sequence[str]) -> list[Column]:
    """A column for each of the figures, with confidence intervals; `numbers` by method."""
    return [figure_column(numbers, name) for name in names]


def figure_column(numbers: Mapping[str, Sequence[Numbers]], name: str) -> Column:
    figure = FIGURES[name]
    cells = [_interval_cell(interval_of(runs, name), figure.unit) for runs in numbers.values()]
    return Column(figure.title, name, figure.better, cells)


def _interval_cell(found: Interval, unit: str) -> Cell:
    between = "" if found.low is None else f"{shown(found.low, unit)} – {shown(found.high, unit)}"
    return Cell(found.mean, shown(found.mean, unit), between)


def shown(value: float | None, unit: str = "") -> str:
    """A value as people read it: 0.123, 12 %, 4.0 kB, 1.5 s, 540,672."""
    if value is None or math.isnan(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.0f} %"
    if unit == "bytes":
        return _bytes(value)
    if unit == "seconds":
        return f"{value:.0f} s" if abs(value) >= 10 else f"{value:.2g} s"
    return f"{value:,.0f}" if unit == "count" else number(value)


def _bytes(value: float) -> str:
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:.0f} B"


def sortable(caption: str, rows: Mapping[str, str], columns: Sequence[Column]) -> str:
    """A table whose heads sort it. `rows` are the methods, each with a remark (text) that stands small beside it.

    Every row shows all its columns also without a script, in the order given.
    """
    heads = "".join(_head(column) for column in columns)
    best = [_best(column) for column in columns]
    body = "".join(
        f'<tr><th scope="row" data-value="{escape(method)}">{escape(method)}{_small(remark)}</th>'
        + "".join(_cell(column.cells[i], i == top) for column, top in zip(columns, best, strict=True))
        + "</tr>"
        for i, (method, remark) in enumerate(rows.items())
    )
    return (
        f'<p class="soft">{escape(caption)}</p><div class="card wide"><table class="numbers sortable"><thead><tr>'
        f'<th scope="col" aria-sort="none" data-better="low"><button type="button" class="sort">Method</button></th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(column: Column) -> str:
    title = escape(column.title)
    opens = f'popovertarget="{about_id(column.figure)}" aria-label="Formula: {title}"'
    about = f'<button type="button" class="about" {opens}>'
    return (
        f'<th scope="col" aria-sort="none" data-better="{column.better}">'
        f'<button type="button" class="sort">{title}</button>{about}ƒ</button></th>'
    )


def _cell(cell: Cell, best: bool) -> str:
    value = "" if cell.value is None else f"{cell.value:.10g}"
    return f'<td{" class=best" if best else ""} data-value="{value}">{escape(cell.text)}{_small(cell.small)}</td>'


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def _best(column: Column) -> int | None:
    """The place of the best value, where there is something to compare and no tie."""
    known = [cell.value for cell in column.cells if cell.value is not None]
    if len(known) < 2 or not column.better:
        return None
    best = max(known) if column.better == "high" else min(known)
    places = [i for i, cell in enumerate(column.cells) if cell.value == best]
    return places[0] if len(places) == 1 else None


def about_id(name: str) -> str:
    return f"about-{name.replace('_', '-')}"


def formulas() -> str:
    """Every figure with its formula: as a list to read and print, and as the notes that the heads of tables open."""
    listed = "".join(f"<dt>{escape(figure.title)}</dt><dd>{_about(figure)}</dd>" for figure in FIGURES.values())
    notes = "".join(
        f'<div popover class="note" id="{about_id(name)}"><b>{escape(figure.title)}</b>{_about(figure)}</div>'
        for name, figure in FIGURES.items()
    )
    return f'<section id="formulas"><h2>Every figure and its formula</h2><dl>{listed}</dl>{notes}</section>'


def _about(figure: Figure) -> str:
    better = {"high": " Higher is better.", "low": " Lower is better.", "": ""}[figure.better]
    return f"<code>{escape(figure.formula)}</code><p>{escape(figure.reading + better)}</p>"
