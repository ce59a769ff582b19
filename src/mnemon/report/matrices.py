"""Score matrices as heat tables; of a benchmark's runs also which concepts were taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemon.evaluation.matrix import ScoreMatrix, just_learned, retention_by_concept
from mnemon.evaluation.numbers import confusion_of
from mnemon.evaluation.run_record import RunRecord
from mnemon.report.charts import whole_rows
from mnemon.report.formatting import number, shown

WHOLE = 12  # concepts, at the most, for a matrix with a row for every one of them


@dataclass(frozen=True, eq=False)
class HeatTable:
    """`values` (rows, columns) coloured over 0..1, nan for an empty cell; `foot` holds rows of texts below them."""

    caption: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: NDArray[np.float64]
    framed: NDArray[np.bool_]
    foot: Mapping[str, Sequence[str]] = field(default_factory=dict)


def matrix_table(matrix: ScoreMatrix, caption: str, ceilings: Mapping[str, float | None]) -> HeatTable:
    """A row after each step; a concept's first score is framed."""
    rows = [f"after {state}" for state in matrix.states]
    return HeatTable(caption, rows, matrix.names, matrix.values, matrix.first, matrix_foot(matrix, ceilings))


def matrix_foot(matrix: ScoreMatrix, ceilings: Mapping[str, float | None]) -> dict[str, Sequence[str]]:
    """The retention of each concept, and what photos of it reach against one another."""
    foot: dict[str, Sequence[str]] = {"retention": [shown(value, "share") for value in retention_by_concept(matrix)]}
    if ceilings:
        foot["photos"] = [number(ceilings.get(name), 2) for name in matrix.names]
    return foot


def run_matrices(record: RunRecord) -> dict[str, Any]:
    """The matrices of a run, as "scores"; its "confusion" as a table, or in words as "confused" for many concepts."""
    scores = [_scores(record, kind) for kind in ("identity", "image")]
    found = {"label": record.label, "scores": scores, "confusion": None, "confused": ""}
    shares = confusion_of(record)
    if shares is None:
        return found
    values = shares.numpy()
    if len(record.names) > WHOLE:
        return found | {"confused": _confused(record.names, values)}
    caption = "Confusion at the end: share of the images of a row's concept that are nearest to a column's"
    framed = np.zeros(values.shape, np.bool_)
    return found | {"confusion": HeatTable(caption, record.names, record.names, values, framed)}


def _scores(record: RunRecord, kind: str) -> HeatTable:
    matrix, caption = record.matrix(f"{kind}_alignment"), f"{kind.capitalize()} alignment"
    ceilings = {name: record.cell(len(matrix.names), name).get(f"{kind}_ceiling") for name in matrix.names}
    if len(matrix.names) <= WHOLE:
        return matrix_table(matrix, caption, ceilings)
    whole = [t - 1 for t in whole_rows(record) if t > 1]
    values = np.vstack([just_learned(matrix), matrix.values[whole]])
    framed = np.vstack([np.ones(len(matrix.names), np.bool_), matrix.first[whole]])
    rows = ["just learned", *(f"after {t + 1}" for t in whole)]
    return HeatTable(caption, rows, matrix.names, values, framed, matrix_foot(matrix, ceilings))


def _confused(names: tuple[str, ...], shares: np.ndarray) -> str:
    """The ten largest confusions, in words."""
    wrong = [
        (float(shares[j, k]), f"{name} taken for {other}")
        for j, name in enumerate(names)
        for k, other in enumerate(names)
        if j != k and shares[j, k] > 0
    ]
    return ", ".join(f"{pair} ({share:.0%})" for share, pair in sorted(wrong, reverse=True)[:10]) or "none"
