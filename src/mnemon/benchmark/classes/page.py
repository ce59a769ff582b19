"""The report of a comparison of classifiers: `report.html`, `report.md`, `summary.json` and `matrices.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mnemon.benchmark.classes.figures import ACCURACY, COST, FIGURES, OTHERWISE, numbers_of
from mnemon.benchmark.classes.protocols import PROTOCOLS
from mnemon.classification import CLASSIFIERS
from mnemon.evaluation.numbers import Numbers, interval_of
from mnemon.evaluation.results import Results
from mnemon.evaluation.run_record import RunRecord
from mnemon.files import write_json
from mnemon.report.charts import line_chart
from mnemon.report.matrices import matrix_table
from mnemon.report.rendering import write_page
from mnemon.report.tables import figure_columns, sortable

_INTRODUCTION = (
    "Classes learned task after task on one frozen backbone, no old image kept, by every method with the same images, "
    "schedule and head. R[t, j]: the share of test images of task j that are right after task t, among all classes so "
    "far. A run is one method on one order of the classes."
)
_INTERVALS = (
    "Percent. Mean over runs; small: 95 % confidence interval of the mean, Student's t over runs. Bold: best. A head "
    "sorts, its ƒ tells the formula."
)
Runs = Mapping[str, Sequence[RunRecord]]


def write(out: Path) -> Path:
    """Read every run under `out` and write the numbers and the page into it; returns the page.

    Raises:
        MnemonError: there is no run, or the runs cannot be compared.
    """
    results = Results.read(out)
    numbers = _ranked({method: [numbers_of(one) for one in results.of(method)] for method in results.methods})
    runs = {method: results.of(method) for method in numbers if numbers[method]}
    protocol = PROTOCOLS.get(results.records[0].protocol) if results.records else None
    trials = protocol.trials if protocol else None
    write_json(out / "summary.json", summary(numbers, trials))
    write_json(out / "matrices.json", {"runs": [_matrix(one) for one in results.records]})
    remarks = {method: _remark(results, method) for method in numbers}
    known = _facts(results, trials)
    tables = {
        heading: sortable(caption, remarks, figure_columns(numbers, names, FIGURES))
        for heading, caption, names in (
            ("Accuracy and forgetting", _INTERVALS, ACCURACY),
            ("Cost", "Mean over runs, as above.", COST),
            ("Accuracy, each image the same", "Percent.", OTHERWISE),
        )
    }
    write_page(
        out / "report.md", "classes.md", facts=known, tables=tables, problems=results.problems,
        figures=list(FIGURES.values()),
    )  # fmt: skip
    return write_page(
        out / "report.html", "classes.html", title=f"Classes: {known['sequence']}", introduction=_INTRODUCTION,
        facts=known, tables=tables, problems=results.problems, over_time=_over_time(runs),
        matrices={method: [(one.label, matrix_table(one.matrix("accuracy"), "Accuracy", {})) for one in of]
                  for method, of in runs.items()},
        measured=_measured(results), figures=FIGURES,
    )  # fmt: skip


def summary(numbers: Mapping[str, Sequence[Numbers]], trials: int | None) -> dict[str, Any]:
    """{"methods": {method: {figure: {"mean", "low", "high", "runs"}, "trials"}}}; low and high bound the mean with 95 %
    confidence. trials: settings that were tried on development classes, as many for every method that trains."""
    return {
        "methods": {
            method: {name: asdict(interval_of(runs, name)) for name in FIGURES} | {"trials": _tried(method, trials)}
            for method, runs in numbers.items()
        }
    }


def _tried(method: str, trials: int | None) -> int | None:
    trains = method not in CLASSIFIERS or CLASSIFIERS[method].trains_head
    return trials if trains else 0


def _ranked(numbers: Mapping[str, list[Numbers]]) -> dict[str, list[Numbers]]:
    """By A_N, the best first; methods without a result last."""
    means = {method: interval_of(runs, "a_n").mean for method, runs in numbers.items()}
    return {method: numbers[method] for method in sorted(numbers, key=lambda one: -(means[one] or 0.0))}


def _remark(results: Results, method: str) -> str:
    runs, problems = results.of(method), len(results.problems_of(method))
    if not runs:
        return f"failed, {problems} of {problems}"
    changed = ", ".join(f"{key}={value}" for key, value in runs[0].departures.items())
    remark = f"{len(runs)} run{'s' if len(runs) > 1 else ''}" + (f", {problems} more failed" if problems else "")
    return remark + (f", with {changed}" if changed else "")


def _facts(results: Results, trials: int | None) -> dict[str, str]:
    """What was run, in short."""
    records = results.records
    if not records:
        return {"sequence": results.folder.name, "runs with a result": "0"}
    return {
        "sequence": records[0].sequence,
        "backbone": records[0].base,
        "protocol": records[0].protocol,
        "tasks": str(len(records[0].names)),
        "classes": str(records[0].score["classes"]),
        "orders": str(len({one.order for one in records})),
        "seeds": str(len({one.seed for one in records})),
        "runs with a result": f"{len(records)} of {len(records) + len(results.problems)}",
        "settings tried of each method": "–" if trials is None else str(trials),
    }


def _over_time(runs: Runs) -> dict[str, Any] | None:
    """The mean over runs of the task mean after each task, one line a method."""
    lines = {method: _line(of_method) for method, of_method in runs.items()}
    return line_chart(lines, "Accuracy on all classes so far, after each task")


def _line(runs: Sequence[RunRecord]) -> list[tuple[int, float]]:
    matrices = [one.matrix("accuracy").values for one in runs]
    return [
        (t, float(sum(values[t - 1, :t].mean() for values in matrices) / len(matrices)))
        for t in range(1, len(matrices[0]) + 1)
    ]


def _matrix(record: RunRecord) -> dict[str, Any]:
    """t -> task -> {"accuracy", "correct", "images"}."""
    rows = {str(t): record.rows[t]["concepts"] for t in sorted(record.rows)}
    return {"method": record.method, "order": record.order, "seed": record.seed, "rows": rows}


def _measured(results: Results) -> dict[str, str]:
    """Settings, versions and machine, as JSON."""
    if not results.records:
        return {}
    first = results.records[0]
    settings = {method: dict(runs[0].settings) for method in results.methods if (runs := results.of(method))}
    parts = {"Settings of the methods": settings, "Versions": first.versions, "Machine": first.machine}
    return {title: json.dumps(part, indent=2, ensure_ascii=False) for title, part in parts.items()}
