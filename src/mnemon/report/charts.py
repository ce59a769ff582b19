"""The report's matrices and curves."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from mnemon.evaluation.matrix import ScoreMatrix, just_learned, last
from mnemon.evaluation.numbers import confusion_of
from mnemon.evaluation.run_record import RunRecord
from mnemon.report import page

Runs = Mapping[str, Sequence[RunRecord]]
WHOLE = 12  # concepts, at the most, for a matrix with a row for every one of them
_KINDS = {"identity_alignment": "Identity alignment", "image_alignment": "Image alignment"}


def over_index(runs: Runs) -> str:
    """For each method, how well the j-th concept was learned and what is left of it at the end, mean over runs."""
    lines: dict[str, Callable[[ScoreMatrix], NDArray[np.float64]]] = {"just learned": just_learned, "at the end": last}
    charts = [
        page.curves(
            {name: _mean_line(of_method, line) for name, line in lines.items()},
            f"{method}: identity alignment by place in the sequence",
            percent=False,
        )
        for method, of_method in runs.items()
    ]
    return (
        "<section><h2>Alignment over concept index</h2><p>The j-th concept learned, mean over runs (in other orders "
        "other concepts have the place). A falling upper line is saturation, the gap between the lines forgetting.</p>"
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def over_time(runs: Runs) -> str:
    """Mean identity alignment of all concepts so far, at the points, one line a method."""
    lines = {method: _average_line(of_method) for method, of_method in runs.items()}
    chart = page.curves(lines, "Mean identity alignment of all concepts so far, after each scored point", percent=False)
    return f"<section><h2>Over the sequence</h2>{chart}</section>"


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


def matrices(runs: Runs) -> str:
    """For each method, the matrices of every run and what its concepts were taken for."""
    parts = []
    for place, (method, of_method) in enumerate(runs.items()):
        of_runs = [page.merged(record.label, _of_run(record), number == 0) for number, record in enumerate(of_method)]
        parts.append(page.merged(method, "".join(of_runs), place == 0))
    said = "R[t, j]: row t after concept t, column j concept j. Framed: just learned. An empty cell was not scored."
    return f"<section><h2>Every score matrix</h2><p>{said}</p>{''.join(parts)}</section>"


def _of_run(record: RunRecord) -> str:
    tables = [_matrix(record, score, caption) for score, caption in _KINDS.items()]
    return f'<div class="pair">{"".join(tables)}</div>{_confusion(record)}'


def _matrix(record: RunRecord, score: str, caption: str) -> str:
    matrix = record.matrix(score)
    kind = score.removesuffix("_alignment")
    cells = record.rows[len(record.names)]["concepts"]
    foot = page.heat_foot(matrix, {name: cells.get(name, {}).get(f"{kind}_ceiling") for name in matrix.names})
    if len(matrix.names) <= WHOLE:
        rows = [f"after {t}" for t in matrix.states]
        return page.heat(rows, matrix.names, matrix.values, caption, matrix.first, foot)
    whole = [t - 1 for t in whole_rows(record) if t > 1]
    values = np.vstack([just_learned(matrix), matrix.values[whole]])
    framed = np.vstack([np.ones(len(matrix.names), np.bool_), matrix.first[whole]])
    rows = ["just learned", *(f"after {t + 1}" for t in whole)]
    return page.heat(rows, matrix.names, values, caption, framed, foot)


def _confusion(record: RunRecord) -> str:
    shares = confusion_of(record)
    if shares is None:
        return ""
    if len(record.names) <= WHOLE:
        said = "Confusion at the end: share of the images of a row's concept that are nearest to a column's"
        return page.heat(record.names, record.names, shares.numpy(), said)
    wrong = [
        (float(shares[j, k]), f"{drawn} taken for {other}")
        for j, drawn in enumerate(record.names)
        for k, other in enumerate(record.names)
        if j != k and shares[j, k] > 0
    ]
    worst = ", ".join(f"{said} ({share:.0%})" for share, said in sorted(wrong, reverse=True)[:10])
    return f"<p>Confusion at the end: {escape(worst) or 'none'}.</p>"
