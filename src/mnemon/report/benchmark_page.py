"""The report of a results folder: `report.html`, which needs nothing else, `report.md`, and the numbers as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemon.evaluation.figures import FIGURES, SUMMARY
from mnemon.evaluation.intervals import interval
from mnemon.evaluation.numbers import Numbers, interval_of, multi_alignment, spread_over_orders
from mnemon.evaluation.results import Results
from mnemon.evaluation.run_record import RunRecord
from mnemon.report import charts, images
from mnemon.report.formatting import shown
from mnemon.report.matrices import run_matrices
from mnemon.report.rendering import write_page
from mnemon.report.summary import alone_names, figures_by_method, summary_names, write_numbers
from mnemon.report.tables import Cell, Column, NumberTable, figure_columns, sortable
from mnemon.report.trials import trials_of

QUALITY, COST = SUMMARY[:10], SUMMARY[10:]
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
_PROTOCOLS = {
    "paper": "Protocol paper: every method has its own settings, as its paper states them, where it does; so prompts "
    "name a concept with its noun or without, as the method does.",
    "level": "Protocol level: prompts, steps, batch, rank, and number, start and learning rate of the embeddings are "
    "the same for every method; only the mechanism differs.",
}
_INTERVALS = (
    "Mean over runs; small: 95 % confidence interval of the mean, Student's t over runs (orders and seeds). Bold: "
    "best. A head sorts, its ƒ tells the formula."
)
_BOUND = (
    "Alone: each concept by the method's own recipe on the bare base, with no other in the model. Settings tried: "
    "before the method's own were chosen, by the lab log."
)
_FORMULAS = (
    "One word, several formulas, whose numbers differ several times over. – : needs scores that these runs do not have."
)
_TOGETHER = "Several concepts in one image"
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
    write_page(
        results.folder / "report.md",
        "report.md",
        facts=known,
        leaderboard=sortable("", remarks, figure_columns(numbers, QUALITY)),
        cost=sortable("", remarks, figure_columns(numbers, COST)),
        problems=results.problems,
        bound=sortable("", remarks, _bound(numbers)),
        figures=[FIGURES[name] for name in summary_names(numbers)],
    )
    return write_page(results.folder / "report.html", "benchmark.html", **_page(results, numbers, remarks), facts=known)


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
    changed = ", ".join(f"{key}={value}" for key, value in results.of(method)[0].departures.items())
    remark = f"{runs} run{'s' if runs > 1 else ''}" + (f", {problems} more failed" if problems else "")
    return remark + (f", with {changed}" if changed else "")


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
        "protocol": records[0].protocol,
        **({"base": records[0].base} if records[0].base else {}),
        "concepts": str(len(records[0].names)),
        **({} if records[0].hold_out else {"photos": "all trained on and scored against"}),
        "methods": str(len(results.methods)),
        "orders": str(len({record.order for record in records})),
        "seeds": str(len({record.seed for record in records})),
        **found,
        "whole rows after": ", ".join(str(t) for t in charts.whole_rows(records[0])),
        "pictures a cell": str(records[0].images_of_a_cell or "–"),
        "± of one cell": shown(error),
        **({"text of general prompts, bare base": shown(bare)} if bare is not None else {}),
    }


def _page(results: Results, numbers: dict[str, list[Numbers]], remarks: dict[str, str]) -> dict[str, Any]:
    runs = {method: results.of(method) for method in numbers if numbers[method]}
    with_images = {
        method: record for method, of in runs.items() if (record := next((one for one in of if one.strips), None))
    }
    first = next(iter(with_images.values()), None)
    return {
        "title": f"Benchmark: {results.records[0].sequence if results.records else results.folder.name}",
        "introduction": _introduction(results),
        "tables": _tables(results, numbers, remarks),
        "problems": results.problems,
        "over_time": charts.over_time(runs) if runs else None,
        "over_index": charts.over_index(runs),
        "side_by_side": images.side_by_side(with_images),
        "grids": {f"{method}, {run.label}": images.over_time(run) for method, run in with_images.items()},
        "few_concepts": first is not None and len(first.names) <= images.SIDE_BY_SIDE,
        "matrices": {method: [run_matrices(record) for record in records] for method, records in runs.items()},
        "measured": _measured(results) if runs else {},
        "figures": FIGURES,
    }


def _introduction(results: Results) -> str:
    text = (
        "One concept after another, learned by every method on the same base, with the same photos, seeds and scores. "
        "A run is one method on one order of the concepts with one seed."
    )
    if results.records:
        protocol = results.records[0].protocol
        text += f" {_PROTOCOLS.get(protocol, protocol)}"
    seen = sorted({name for record in results.records for name in record.not_held_out})
    if not all(record.hold_out for record in results.records):
        text += " All photos of every concept are both trained on and scored against, as was asked: none is held out."
    elif seen:
        text += f" Scored against photos that were also trained on, for want of others: {', '.join(seen)}."
    return text


def _tables(results: Results, numbers: dict[str, list[Numbers]], remarks: dict[str, str]) -> dict[str, NumberTable]:
    """Heading -> table; those without any number are left out."""
    plain = "Mean over runs, as above."
    columns = {
        "Leaderboard": (_INTERVALS, figure_columns(numbers, QUALITY)),
        "Own bound": (_BOUND, _bound(numbers)),
        "Cost": (plain, figure_columns(numbers, COSTS)),
        "Forgetting in every formula": (_FORMULAS, figure_columns(numbers, FORGETTING)),
        _TOGETHER: (
            "Prompts that name several concepts, after the last one. Mean over runs.",
            _multi(results, numbers),
        ),
        "Likeness, seen otherwise": (plain, figure_columns(numbers, LIKENESS)),
        "What the prompt asks for": (plain, figure_columns(numbers, PROMPTED)),
        "Spread over orders": (_SPREAD, _spreads(results, numbers)),
    }
    refused = {_TOGETHER: _refused(results)}
    return {
        heading: sortable(caption, remarks, of, refused.get(heading, ()))
        for heading, (caption, of) in columns.items()
        if of
    }


def _bound(numbers: Mapping[str, Sequence[Numbers]]) -> list[Column]:
    """What each method reaches alone, where that was measured, and how many settings of it were tried."""
    counts = [trials_of(method).count for method in numbers]
    trials = [Cell("–" if count is None else str(count), count) for count in counts]
    known = any(count is not None for count in counts)
    return figure_columns(numbers, alone_names(numbers)) + ([Column("Settings tried", trials)] if known else [])


def _spreads(results: Results, numbers: Mapping[str, Sequence[Numbers]]) -> list[Column]:
    """Empty where no method has runs of two orders."""
    spreads = {
        name: [spread_over_orders(results.of(method), runs, name) for method, runs in numbers.items()]
        for name in SPREADS
    }
    if not any(value is not None for values in spreads.values() for value in values):
        return []
    return [
        Column(FIGURES[name].title, [Cell(shown(value), value) for value in values], name, "low")
        for name, values in spreads.items()
    ]


def _multi(results: Results, numbers: Mapping[str, Sequence[Numbers]]) -> list[Column]:
    """Text alignment by how many concepts a prompt names, beside the means of all."""
    sizes = sorted({len(one["concepts"]) for record in results.records for one in _entries(record)})
    columns = [_size_column(results, numbers, size) for size in sizes]
    every = [f"multi_{kind}_alignment" for kind in ("text", "identity", "image")]
    return columns + figure_columns(numbers, every) if sizes else []


def _refused(results: Results) -> list[str]:
    """What methods or the base refused to sample."""
    return sorted({
        f"{record.method}, {size} concepts: {reason}"
        for record in results.records
        for size, reason in record.last_row.get("refused", {}).items()
    })  # fmt: skip


def _size_column(results: Results, methods: Iterable[str], size: int) -> Column:
    cells = []
    for method in methods:
        values = [multi_alignment(_entries(record), "text_alignment", size) for record in results.of(method)]
        mean = interval(values).mean
        cells.append(Cell(shown(mean), mean))
    return Column(f"Text, {size} concepts", cells, "multi_text_alignment", "high")


def _entries(record: RunRecord) -> list[dict[str, Any]]:
    return record.last_row.get("multi") or []


def _measured(results: Results) -> dict[str, str]:
    """Settings of scoring and methods, versions and machines, as JSON."""
    first = results.records[0]
    machines = {json.dumps(record.machine, sort_keys=True): record.machine for record in results.records}
    settings = {method: runs[0].settings for method in results.methods if (runs := results.of(method))}
    parts = {"Scoring": first.score, "Versions": first.versions, "Settings of the methods": settings}
    parts |= {f"Machine {number}": one for number, one in enumerate(machines.values(), start=1)}
    return {title: json.dumps(part, indent=2, ensure_ascii=False) for title, part in parts.items()}
