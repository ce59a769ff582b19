"""The score matrix R[t, j], the score of concept j after step t, and the numbers that follow from it.

Formulas, their sources and the entries that they need: `mnemon.evaluation.figures.MATRIX_FIGURES`, by name. A cell
is nan where the concept was not there yet, was removed, or was not measured. R[j, j] is the score of concept j in the
first row that it is in, R[N, j] its score in the last row. Concepts that are not there are left out of a mean; a mean
of nothing is nan. If an entry that a formula needs was not measured the number is nan, never a number of fewer entries.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (steps, concepts)
Cells = NDArray[np.bool_]  # (steps, concepts)


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """`values[t, j]`: score of concept `names[j]` at library state `states[t]`; nan where there is none.

    Attributes:
        there: the cells in which the concept was in the model, measured or not. None: wherever there is a score, so
            that nothing counts as missing.
    """

    names: tuple[str, ...]
    states: tuple[int, ...]
    values: Values
    there: Cells | None = None

    def __post_init__(self) -> None:
        for cells in (self.values, self.cells):
            if cells.shape != (len(self.states), len(self.names)):
                raise ValueError(f"{cells.shape} values for {len(self.states)} states and {len(self.names)} concepts")

    @property
    def cells(self) -> Cells:
        """`there`, given or taken from the scores."""
        return ~np.isnan(self.values) if self.there is None else self.there

    @property
    def first(self) -> Cells:
        """The cells R[j, j]."""
        return self.cells & (self.cells.cumsum(axis=0) == 1)

    def has(self, needed: Cells) -> bool:
        """Whether every cell of `needed` in which a concept is there was measured."""
        return not bool((needed & self.cells & np.isnan(self.values)).any())


def matrix_from_rows(rows: Mapping[int, Mapping[str, Any]], score: str) -> ScoreMatrix:
    """The matrix of one score ("identity_alignment", ...) from a library's rows (`EvalRow.to_json`), by state."""
    states = sorted(state for state in rows if rows[state]["concepts"])
    names = list(dict.fromkeys(name for state in states for name in rows[state]["concepts"]))
    values = np.full((len(states), len(names)), np.nan)
    for t, state in enumerate(states):
        for name, scores in rows[state]["concepts"].items():
            value = scores.get(score)
            values[t, names.index(name)] = np.nan if value is None else value
    return ScoreMatrix(tuple(names), tuple(states), values)


def just_learned(matrix: ScoreMatrix) -> Values:
    """R[j, j] for every concept, (concepts,)."""
    learned = np.full(len(matrix.names), np.nan)
    t, j = np.nonzero(matrix.first)
    learned[j] = matrix.values[t, j]
    return learned


def last(matrix: ScoreMatrix) -> Values:
    """R[N, j] for every concept, (concepts,)."""
    return matrix.values[-1] if len(matrix.states) else np.full(len(matrix.names), np.nan)


def final_average(matrix: ScoreMatrix) -> float:
    """The mean of the last row."""
    return _mean(last(matrix)) if matrix.has(_last_row(matrix)) else math.nan


def learning_accuracy(matrix: ScoreMatrix) -> float:
    """The mean of the diagonal."""
    return _mean(just_learned(matrix)) if matrix.has(matrix.first) else math.nan


def learning_accuracy_of_first(matrix: ScoreMatrix, count: int = 10) -> float:
    """The mean of the diagonal over the first min(count, N) concepts."""
    return _whole_mean(just_learned(matrix)[:count])


def learning_accuracy_of_last(matrix: ScoreMatrix, count: int = 10) -> float:
    """The mean of the diagonal over the last min(count, N) concepts."""
    return _whole_mean(just_learned(matrix)[-count:])


def forgetting_from_best(matrix: ScoreMatrix) -> float:
    """Best minus last score, mean over the concepts j < N; ≥ 0."""
    earlier = _earlier(matrix)
    if not matrix.has(np.broadcast_to(earlier, matrix.values.shape)):
        return math.nan
    best = np.array([np.nan if np.isnan(column).all() else np.nanmax(column) for column in matrix.values.T])
    return _mean((best - last(matrix))[earlier])


def forgetting_from_first(matrix: ScoreMatrix) -> float:
    """First minus last score, mean over the concepts j < N."""
    return 0.0 - backward_transfer(matrix)  # not -0.0


def forgetting_one_step(matrix: ScoreMatrix) -> float:
    """Mean drop in one step; never to be compared with the other two."""
    if not matrix.has(np.broadcast_to(_earlier(matrix), matrix.values.shape)):
        return math.nan
    drops = matrix.values[:-1] - matrix.values[1:]  # nan unless the concept was there before and after the step
    return _mean(np.array([_mean(row) for row in drops]))


def backward_transfer(matrix: ScoreMatrix) -> float:
    """Last minus first score, mean over the concepts j < N."""
    earlier = _earlier(matrix)
    if not matrix.has((matrix.first | _last_row(matrix)) & earlier):
        return math.nan
    return _mean((last(matrix) - just_learned(matrix))[earlier])


def retention_by_concept(matrix: ScoreMatrix) -> Values:
    """Last over first score, (concepts,): 1 is kept in full; nan where nothing was learned (R[j, j] ≤ 0)."""
    learned = just_learned(matrix)
    learned[~(learned > 0)] = np.nan
    return last(matrix) / learned


def retention(matrix: ScoreMatrix) -> float:
    """The mean of `retention_by_concept`; the last concept counts, with 1."""
    return _mean(retention_by_concept(matrix)) if matrix.has(matrix.first | _last_row(matrix)) else math.nan


def figures(matrix: ScoreMatrix) -> dict[str, float | None]:
    """Every number of `MATRIX_FIGURES` by name; None for nan, so that it can be written as JSON."""
    numbers = {
        "final_average": final_average(matrix),
        "learning_accuracy": learning_accuracy(matrix),
        "learning_accuracy_first10": learning_accuracy_of_first(matrix),
        "learning_accuracy_last10": learning_accuracy_of_last(matrix),
        "forgetting_from_best": forgetting_from_best(matrix),
        "forgetting_from_first": forgetting_from_first(matrix),
        "forgetting_one_step": forgetting_one_step(matrix),
        "backward_transfer": backward_transfer(matrix),
        "retention": retention(matrix),
    }
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def _last_row(matrix: ScoreMatrix) -> Cells:
    cells = np.zeros(matrix.values.shape, np.bool_)
    cells[-1:] = True
    return cells


def _earlier(matrix: ScoreMatrix) -> Cells:
    """Which concepts are there before the last row: j < N, (concepts,)."""
    return np.asarray(matrix.cells[:-1].any(axis=0))


def _whole_mean(values: Values) -> float:
    return float(values.mean()) if len(values) else math.nan


def _mean(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
