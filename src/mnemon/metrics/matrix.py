"""The score matrix R[t, j], the score of concept j after step t, and the numbers that follow from it.

The same names mean different things in different papers; each function says its formula and who uses it. A cell is
nan where the concept was not there yet, was removed, or was not measured. R[j, j] below is the first score that
column j has, R[N, j] its score in the last row. Concepts without either are left out of a mean; a mean of nothing is
nan.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (steps, concepts)


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """`values[t, j]`: score of concept `names[j]` at library state `states[t]`; nan where there is none."""

    names: tuple[str, ...]
    states: tuple[int, ...]
    values: Values

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.states), len(self.names)):
            raise ValueError(f"{self.values.shape} values for {len(self.states)} states and {len(self.names)} concepts")


def matrix_from_rows(rows: Mapping[int, Mapping[str, Any]], score: str) -> ScoreMatrix:
    """The matrix of one score ("identity_alignment", ...) from a library's measured rows (`measure_row`), by state."""
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
    return np.array([_first(column) for column in matrix.values.T])


def last(matrix: ScoreMatrix) -> Values:
    """R[N, j] for every concept, (concepts,)."""
    return matrix.values[-1] if len(matrix.states) else np.full(len(matrix.names), np.nan)


def final_average(matrix: ScoreMatrix) -> float:
    """A_N = (1/N) Σ_j R[N, j], the mean over concepts (CODA-Prompt, mammoth)."""
    return _mean(last(matrix))


def learning_accuracy(matrix: ScoreMatrix) -> float:
    """(1/N) Σ_j R[j, j]: how well concepts were learned, whatever became of them."""
    return _mean(just_learned(matrix))


def forgetting_from_best(matrix: ScoreMatrix) -> float:
    """(1/(N-1)) Σ_{j<N} (max_t R[t, j] - R[N, j]) (mammoth, LAMDA-PILOT). The maximum includes the last row: ≥ 0."""
    best = np.array([np.nan if np.isnan(column).all() else np.nanmax(column) for column in matrix.values.T])
    return _mean((best - last(matrix))[_earlier(matrix)])


def forgetting_from_first(matrix: ScoreMatrix) -> float:
    """(1/(N-1)) Σ_{j<N} (R[j, j] - R[N, j]) (Avalanche); below zero where later concepts helped."""
    return 0.0 - backward_transfer(matrix)  # not -0.0


def forgetting_one_step(matrix: ScoreMatrix) -> float:
    """F_N = (1/(N-1)) Σ_{t=2..N} (1/(t-1)) Σ_{j<t} (R[t-1, j] - R[t, j]): mean drop in one step (CODA-Prompt).

    For the same run it is several times smaller than the other two: never compare across formulas.
    """
    drops = matrix.values[:-1] - matrix.values[1:]  # nan unless the concept was there before and after the step
    return _mean(np.array([_mean(row) for row in drops]))


def backward_transfer(matrix: ScoreMatrix) -> float:
    """(1/(N-1)) Σ_{j<N} (R[N, j] - R[j, j]) (GEM, arXiv 1706.08840): minus `forgetting_from_first`."""
    return _mean((last(matrix) - just_learned(matrix))[_earlier(matrix)])


def retention_by_concept(matrix: ScoreMatrix) -> Values:
    """R[N, j] / R[j, j], (concepts,): 1 is kept in full; nan where nothing was learned (R[j, j] ≤ 0)."""
    learned = just_learned(matrix)
    learned[~(learned > 0)] = np.nan
    return last(matrix) / learned


def retention(matrix: ScoreMatrix) -> float:
    """(1/N) Σ_j R[N, j] / R[j, j]. The last concept counts, with 1."""
    return _mean(retention_by_concept(matrix))


def figures(matrix: ScoreMatrix) -> dict[str, float | None]:
    """Every number above by name; None for nan, so that it can be written as JSON."""
    numbers = {
        "final_average": final_average(matrix),
        "learning_accuracy": learning_accuracy(matrix),
        "forgetting_from_best": forgetting_from_best(matrix),
        "forgetting_from_first": forgetting_from_first(matrix),
        "forgetting_one_step": forgetting_one_step(matrix),
        "backward_transfer": backward_transfer(matrix),
        "retention": retention(matrix),
    }
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def _earlier(matrix: ScoreMatrix) -> NDArray[np.bool_]:
    """Which concepts have a score before the last row: j < N."""
    known: NDArray[np.bool_] = ~np.isnan(matrix.values[:-1])
    return np.asarray(known.any(axis=0))


def _first(column: Values) -> float:
    known = column[~np.isnan(column)]
    return float(known[0]) if len(known) else math.nan


def _mean(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
