"""A results folder's numbers as JSON: the summary, all figures, every matrix, settings and machines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mnemon.evaluation.figures import ALONE, FIGURES, SUMMARY
from mnemon.evaluation.numbers import Numbers, confusion_of, figures_of, interval_of, spread_over_orders
from mnemon.evaluation.results import Results
from mnemon.evaluation.run_folder import RunFolder
from mnemon.evaluation.run_record import SCORES, RunRecord
from mnemon.files import write_json
from mnemon.report.trials import trials_of

DIGITS = 6  # of numbers in matrices


def figures_by_method(results: Results) -> dict[str, list[Numbers]]:
    """The figures of every finished run, by method; a method all of whose runs failed has none."""
    return {method: [figures_of(record) for record in results.of(method)] for method in results.methods}


def summary(numbers: Mapping[str, Sequence[Numbers]]) -> dict[str, Any]:
    """{"methods": {method: {figure: {"mean", "low", "high", "runs"}, "trials"}}} of the figures in `summary_names`.

    low and high bound the mean with 95 % confidence (t interval over runs), null for fewer than two runs; a method
    without any finished run has runs 0 and null for the rest. trials is null where the number is not known.
    """
    names = summary_names(numbers)
    figures = {method: {name: asdict(interval_of(runs, name)) for name in names} for method, runs in numbers.items()}
    return {"methods": {method: found | {"trials": trials_of(method).count} for method, found in figures.items()}}


def summary_names(numbers: Mapping[str, Sequence[Numbers]]) -> tuple[str, ...]:
    """The figures of the summary: `SUMMARY`, and those of `ALONE` that were measured."""
    return SUMMARY + alone_names(numbers)


def alone_names(numbers: Mapping[str, Sequence[Numbers]]) -> tuple[str, ...]:
    """The figures of `ALONE` that a run has."""
    return tuple(name for name in ALONE if any(one[name] is not None for runs in numbers.values() for one in runs))


def write_numbers(results: Results, numbers: dict[str, list[Numbers]]) -> None:
    """Write `summary.json`, `figures.json`, `matrices.json` and `settings.json` into the results folder, and into the
    folder of every run a `figures.json` of its own: that remains where the features are left out."""
    write_json(results.folder / "summary.json", summary(numbers))
    write_json(results.folder / "figures.json", {"methods": _all_figures(results, numbers)})
    matrices = {record.folder: _matrices(record) for record in results.records}
    write_json(results.folder / "matrices.json", {"runs": list(matrices.values())})
    write_json(results.folder / "settings.json", _settings(results))
    for method, runs in numbers.items():
        for record, found in zip(results.of(method), runs, strict=True):
            if record.features:
                known = {name: value for name, value in found.items() if value is not None}
                RunFolder(record.folder).write_figures(known, matrices[record.folder]["confusion"])


def _all_figures(results: Results, numbers: dict[str, list[Numbers]]) -> dict[str, Any]:
    """As the summary, of every figure, with its spread over orders and its value in every run."""
    return {
        method: {
            name: asdict(interval_of(runs, name))
            | {
                "spread_over_orders": spread_over_orders(results.of(method), runs, name),
                "values": [one[name] for one in runs],
            }
            for name in FIGURES
        }
        for method, runs in numbers.items()
    }


def _matrices(record: RunRecord) -> dict[str, Any]:
    """Every score that was measured: score -> t -> concept -> value."""
    shares = confusion_of(record)
    return {
        "method": record.method,
        "order": record.order,
        "seed": record.seed,
        "concepts": list(record.names),
        "scores": {score: _cells(record, score) for score in SCORES},
        "multi": record.last_row.get("multi", []),
        "confusion": None if shares is None else [[round(float(one), DIGITS) for one in row] for row in shares],
    }


def _cells(record: RunRecord, score: str) -> dict[str, dict[str, float]]:
    matrix = record.matrix(score)
    return {
        str(t): {
            name: round(float(value), DIGITS) for name, value in zip(matrix.names, row, strict=True) if value == value
        }
        for t, row in zip(matrix.states, matrix.values, strict=True)
        if not np.isnan(row).all()
    }


def _settings(results: Results) -> dict[str, Any]:
    """What was run and where; runs without a result say why."""
    first = results.records[0] if results.records else None
    return {
        "sequence": first.sequence if first else None,
        "protocol": first.protocol if first else None,
        "score": dict(first.score) if first else None,
        "methods": {method: dict(runs[0].settings) for method in results.methods if (runs := results.of(method))},
        "set": {method: dict(changed) for method, changed in _departures(results).items()},
        "runs": [
            {"method": one.method, "order": one.order, "seed": one.seed, "concepts": list(one.names),
             "versions": dict(one.versions), "machine": dict(one.machine)}
            for one in results.records
        ],
        "failed": [asdict(one) for one in results.problems],
    }  # fmt: skip


def _departures(results: Results) -> dict[str, Mapping[str, Any]]:
    """By method the settings that are not those of the protocol, where there are some."""
    of_first = {method: runs[0].departures for method in results.methods if (runs := results.of(method))}
    return {method: changed for method, changed in of_first.items() if changed}
