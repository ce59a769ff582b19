"""The score matrices of a benchmark's runs, and which concepts were taken for which."""

from dataclasses import dataclass

import numpy as np

from mnemon.evaluation.matrix import just_learned
from mnemon.evaluation.numbers import confusion_of
from mnemon.evaluation.run_record import RunRecord
from mnemon.report.charts import whole_rows
from mnemon.report.tables import HeatTable, matrix_foot, matrix_table

WHOLE = 12  # concepts, at the most, for a matrix with a row for every one of them
_CAPTIONS = {"identity": "Identity alignment", "image": "Image alignment"}


@dataclass(frozen=True)
class RunMatrices:
    """The matrices of a run; its confusion as a table, or in words for many concepts."""

    label: str
    scores: list[HeatTable]
    confusion: HeatTable | None
    confused: str


def run_matrices(record: RunRecord) -> RunMatrices:
    scores = [_scores(record, kind, caption) for kind, caption in _CAPTIONS.items()]
    shares = confusion_of(record)
    if shares is None:
        return RunMatrices(record.label, scores, None, "")
    values = shares.numpy()
    if len(record.names) > WHOLE:
        return RunMatrices(record.label, scores, None, _confused(record.names, values))
    caption = "Confusion at the end: share of the images of a row's concept that are nearest to a column's"
    return RunMatrices(
        record.label,
        scores,
        HeatTable(caption, record.names, record.names, values, np.zeros(values.shape, np.bool_)),
        "",
    )


def _scores(record: RunRecord, kind: str, caption: str) -> HeatTable:
    matrix = record.matrix(f"{kind}_alignment")
    cells = record.rows[len(record.names)]["concepts"]
    ceilings = {name: cells.get(name, {}).get(f"{kind}_ceiling") for name in matrix.names}
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
