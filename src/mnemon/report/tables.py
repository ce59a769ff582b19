"""Tables of numbers in which the best value is marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mnemon.evaluation.figures import FIGURES, Figure
from mnemon.evaluation.numbers import Numbers, interval_of
from mnemon.report.formatting import shown


@dataclass(frozen=True)
class Cell:
    """A number as text, the value it is ranked by, what stands small below it, and whether it is the best."""

    text: str
    value: float | None = None
    small: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """`figure` is the name in `FIGURES` whose formula the head opens; `better` is "high", "low" or ""."""

    title: str
    cells: Sequence[Cell] = ()
    figure: str = ""
    better: str = ""


@dataclass(frozen=True)
class Row:
    title: str
    cells: Sequence[Cell]
    small: str = ""


@dataclass(frozen=True)
class NumberTable:
    """`not_sampled` is listed below the table: what was asked for and refused."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    sortable: bool = False
    not_sampled: Sequence[str] = ()


def with_best(cells: Sequence[Cell], better: str) -> list[Cell]:
    """The cells, the best one marked where there is something to compare and no tie."""
    values = [cell.value for cell in cells if cell.value is not None]
    best = {"high": max, "low": min, "": None}[better]
    if best is None or len(values) < 2 or values.count(best(values)) > 1:
        return list(cells)
    return [replace(cell, best=cell.value == best(values)) for cell in cells]


def sortable(
    caption: str, remarks: Mapping[str, str], columns: Sequence[Column], not_sampled: Sequence[str] = ()
) -> NumberTable:
    """One row a method, with its remark small beside it; a column's head sorts the rows."""
    ranked = [with_best(column.cells, column.better) for column in columns]
    rows = [Row(method, [cells[i] for cells in ranked], remarks[method]) for i, method in enumerate(remarks)]
    return NumberTable(columns, rows, caption, True, not_sampled)


def figure_columns(
    numbers: Mapping[str, Sequence[Numbers]], names: Sequence[str], figures: Mapping[str, Figure] = FIGURES
) -> list[Column]:
    """A column for each of the figures, with confidence intervals; `numbers` by method."""
    return [
        Column(
            figures[name].title,
            [_interval_cell(runs, name, figures[name].unit) for runs in numbers.values()],
            name,
            figures[name].better,
        )
        for name in names
    ]


def _interval_cell(runs: Sequence[Numbers], name: str, unit: str) -> Cell:
    mean = interval_of(runs, name)
    between = "" if mean.low is None else f"{shown(mean.low, unit)} – {shown(mean.high, unit)}"
    return Cell(shown(mean.mean, unit), mean.mean, between)
