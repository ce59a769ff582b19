"""The report of a results folder: `report.html`, which needs nothing else, `report.md`, and the numbers as JSON."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from mnemon.evaluation.figures import FIGURES, SUMMARY
from mnemon.evaluation.intervals import interval
from mnemon.evaluation.numbers import Numbers, interval_of, multi_alignment, spread_over_orders
from mnemon.evaluation.results import Problem, Results
from mnemon.evaluation.run_record import RunRecord
from mnemon.files import write_text
from mnemon.report import charts, image_strips, markdown, page
from mnemon.report.summary import figures_by_method, write_numbers
from mnemon.report.tables import Cell, Column, figure_column, figure_columns, formulas, shown, sortable

QUALITY = SUMMARY[:10]
COSTS = (
    "parameters", "bytes", "seconds_per_concept", "fusion_seconds", "fusion_peak_bytes", "draw_seconds_per_picture",
    "peak_memory_bytes",
)  # fmt: skip
FORGETTING = (
    "learning_accuracy", "forgetting", "forgetting_image", "forgetting_from_best", "forgetting_one_step",
    "backward_transfer", "retention",
)  # fmt: skip
LIKENESS = ("identity_of_ceiling", "recognised", "kid", "mmd_just_learned", "picture_error")
PROMPTED = (
    "clip_score", "noun_accuracy", "background_accuracy", "general_text_alignment", "general_attribute_accuracy",
)  # fmt: skip
SPREADS = ("identity_alignment", "image_alignment", "text_alignment", "forgetting", "zero_shot_drift")
_INTERVALS = (
    "Mean over runs; small: 95 % confidence interval of the mean, Student's t over runs (orders and seeds). Bold: "
    "best. A head sorts, its ƒ tells the formula."
)
_FORMULAS = (
    "One word, several formulas, whose numbers differ several times over. – : needs scores that these runs do not have."
)
_SPREAD = "Standard deviation over orders, each the mean over its seeds: how much the order of the concepts matters."


def write(out: str | Path) -> Path:
    """Read every run under `out` and write the numbers (`summary.json` and beside it `figures.json`, `matrices.json`,
    `settings.json`), `report.html` and `report.md` into it; returns the page.

    Raises:
        MnemonError: there is no run, or the runs cannot be compared.
    """
    results = Results.read(out)
    numbers = _ranked(figures_by_method(results))
    write_numbers(results, numbers)
    remarks = {method: _remark(results, method) for method in numbers}
    known = facts(results, numbers)
    write_text(results.folder / "report.md", markdown.text(results, numbers, remarks, known))
    path = results.folder / "report.html"
    write_text(path, _page(results, numbers, remarks, known))
    return path


def _ranked(numbers: dict[str, list[Numbers]]) -> dict[str, list[Numbers]]:
    """By identity alignment, the best first; methods without a result last."""

    def place(method: str) -> tuple[bool, float]:
        mean = interval_of(numbers[method], "identity_alignment").mean
        return mean is None, -(mean or 0.0)

    return {method: numbers[method] for method in sorted(numbers, key=place)}


def _remark(results: Results, method: str) -> str:
    runs, problems = len(results.of(method)), len(results.problems_of(method))
    if not runs:
        return f"failed, {problems} of {problems}"
    return f"{runs} run{'s' if runs > 1 else ''}" + (f", {problems} more failed" if problems else "")


def facts(results: Results, numbers: Mapping[str, Sequence[Numbers]]) -> dict[str, str]:
    """What was run, in short."""
    records = results.records
    found = {"runs with a result": f"{len(records)} of {len(records) + len(results.problems)}"}
    if not records:
        return found
    error = interval([one["picture_error"] for runs in numbers.values() for one in runs]).mean
    bare = records[0].rows.get(0, {}).get("general", {}).get("text_alignment")
    return {
        "sequence": records[0].sequence,
        **({"base": records[0].base} if records[0].base else {}),
        "concepts": str(len(records[0].names)),
        "methods": str(len(results.methods)),
        "orders": str(len({record.order for record in records})),
        "seeds": str(len({record.seed for record in records})),
        **found,
        "whole rows after": ", ".join(str(t) for t in charts.whole_rows(records[0])),
        "pictures a cell": str(records[0].images_of_a_cell or "–"),
        "± of one cell": shown(error),
        **({"text of general prompts, bare base": shown(bare)} if bare is not None else {}),
    }


def _page(
    results: Results, numbers: dict[str, list[Numbers]], remarks: dict[str, str], known: Mapping[str, str]
) -> str:
    runs = {method: results.of(method) for method in numbers if numbers[method]}
    with_images = {method: record for method, of in runs.items() if (record := _first_with_images(of))}
    sections = [
        _tables(results, numbers, remarks),
        _failed(results.problems),
        *([charts.over_time(runs), charts.over_index(runs)] if runs else []),
        image_strips.side_by_side(with_images),
        image_strips.grids(with_images),
        *([charts.matrices(runs), _measured(results)] if runs else []),
        formulas(),
    ]
    room = files("mnemon.report")
    style = "".join(room.joinpath(name).read_text(encoding="utf-8") for name in ("library.css", "benchmark.css"))
    script = room.joinpath("sort.js").read_text(encoding="utf-8")
    title = f"Benchmark: {results.records[0].sequence if results.records else results.folder.name}"
    return page.document(title, _introduction(results), known, sections, style, script)


def _introduction(results: Results) -> str:
    text = (
        "One concept after another, taught by every method to the same base, with the same photos, prompts, seeds and "
        "scores. A run is one method on one order of the concepts with one seed."
    )
    seen = sorted({one.name for record in results.records for one in record.concepts if not one.held_out})
    if seen:
        text += f" Scored against photos that were also trained on, for want of others: {', '.join(seen)}."
    return text


def _tables(results: Results, numbers: dict[str, list[Numbers]], remarks: dict[str, str]) -> str:
    plain = "Mean over runs, as above."
    parts = {
        "Leaderboard": sortable(_INTERVALS, remarks, figure_columns(numbers, QUALITY)),
        "Cost": sortable(plain, remarks, figure_columns(numbers, COSTS)),
        "Forgetting in every formula": sortable(_FORMULAS, remarks, figure_columns(numbers, FORGETTING)),
        "Several concepts in one image": _multi(results, numbers, remarks),
        "Likeness, seen otherwise": sortable(plain, remarks, figure_columns(numbers, LIKENESS)),
        "What the prompt asks for": sortable(plain, remarks, figure_columns(numbers, PROMPTED)),
        "Spread over orders": _spreads(results, numbers, remarks),
    }
    return "".join(f"<section><h2>{title}</h2>{table}</section>" for title, table in parts.items() if table)


def _spreads(results: Results, numbers: Mapping[str, Sequence[Numbers]], remarks: Mapping[str, str]) -> str:
    """Nothing where no method has runs of two orders."""
    columns = [_spread_column(results, numbers, name) for name in SPREADS]
    known = any(cell.value is not None for column in columns for cell in column.cells)
    return sortable(_SPREAD, remarks, columns) if known else ""


def _spread_column(results: Results, numbers: Mapping[str, Sequence[Numbers]], name: str) -> Column:
    values = [spread_over_orders(results.of(method), runs, name) for method, runs in numbers.items()]
    return Column(FIGURES[name].title, name, "low", [Cell(value, shown(value)) for value in values])


def _multi(results: Results, numbers: Mapping[str, Sequence[Numbers]], remarks: Mapping[str, str]) -> str:
    """Text alignment by how many concepts a prompt names, beside the means of all."""
    sizes = sorted({len(one["concepts"]) for record in results.records for one in _entries(record)})
    if not sizes:
        return ""
    columns = [_size_column(results, numbers, size) for size in sizes]
    columns += [figure_column(numbers, f"multi_{kind}_alignment") for kind in ("text", "identity", "image")]
    said = "Prompts that name several concepts, after the last one. Mean over runs."
    return sortable(said, remarks, columns) + _refused(results)


def _refused(results: Results) -> str:
    """What methods or the base would not draw."""
    refused = {
        f"{record.method}, {size} concepts: {reason}"
        for record in results.records
        for size, reason in record.rows[len(record.names)].get("refused", {}).items()
    }
    listed = "".join(f"<li>{escape(one)}</li>" for one in sorted(refused))
    return f"<p>Not drawn:</p><ul>{listed}</ul>" if listed else ""


def _size_column(results: Results, numbers: Mapping[str, Sequence[Numbers]], size: int) -> Column:
    cells = []
    for method in numbers:
        found = [multi_alignment(_entries(record), "text_alignment", size) for record in results.of(method)]
        known = [value for value in found if value is not None]
        mean = sum(known) / len(known) if known else None
        cells.append(Cell(mean, shown(mean)))
    return Column(f"Text, {size} concepts", "multi_text_alignment", "high", cells)


def _entries(record: RunRecord) -> list[dict[str, Any]]:
    return record.rows[len(record.names)].get("multi") or []


def _failed(problems: Sequence[Problem]) -> str:
    if not problems:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(one.method)}</th><td>{escape(one.run)}</td><td>{escape(one.where)}</td>'
        f"<td>{escape(one.error)}</td></tr>"
        for one in problems
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Method", "Run", "Where", "What happened"))
    return (
        "<section><h2>Runs without a result</h2>"
        f'<div class="card wide"><table class="numbers failed"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _first_with_images(records: Sequence[RunRecord]) -> RunRecord | None:
    return next((record for record in records if record.strips), None)


def _measured(results: Results) -> str:
    """How images were drawn, with which settings, on which machine."""
    first = results.records[0]
    machines = {json.dumps(record.machine, sort_keys=True): record.machine for record in results.records}
    settings = {method: runs[0].settings for method in results.methods if (runs := results.of(method))}
    parts = {"Scoring": first.score, "Versions": first.versions, "Settings of the methods": settings}
    parts |= {f"Machine {number}": one for number, one in enumerate(machines.values(), start=1)}
    shown_parts = [page.merged(title, f"<pre>{escape(_json(value))}</pre>") for title, value in parts.items()]
    said = (
        "Whole rows are scored at the points, the concept just learned always. ± of one cell is half of the 95 % "
        "interval of one score from its images. Intervals over runs hold for other orders and seeds of these "
        "concepts, not for other concepts."
    )
    return f"<section><h2>How it was measured</h2><p>{said}</p>{''.join(shown_parts)}</section>"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
