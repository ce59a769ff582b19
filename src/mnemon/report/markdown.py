"""The report's tables as Markdown, for a README or a results page."""

from collections.abc import Mapping, Sequence

from mnemon.evaluation.figures import FIGURES, SUMMARY
from mnemon.evaluation.numbers import Numbers, interval_of
from mnemon.evaluation.results import Problem, Results
from mnemon.report.formatting import shown

_QUALITY, _COSTS = SUMMARY[:10], SUMMARY[10:]


def text(
    results: Results, numbers: Mapping[str, Sequence[Numbers]], remarks: Mapping[str, str], facts: Mapping[str, str]
) -> str:
    """Leaderboard, costs, failed runs and formulas; `numbers` and `remarks` by method, in the order of the rows."""
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    parts = [
        f"# Benchmark\n\n{said}. Mean over runs [95 % confidence interval of the mean, Student's t over runs].",
        f"## Leaderboard\n\n{_table(numbers, remarks, _QUALITY)}",
        f"## Cost\n\n{_table(numbers, remarks, _COSTS)}",
        *([f"## Runs without a result\n\n{_failed(results.problems)}"] if results.problems else []),
        f"## Formulas\n\n{_formulas()}",
    ]
    return "\n\n".join(parts) + "\n"


def _table(numbers: Mapping[str, Sequence[Numbers]], remarks: Mapping[str, str], names: Sequence[str]) -> str:
    rows = [
        [f"{method} ({remarks[method]})", *(_cell(runs, name) for name in names)] for method, runs in numbers.items()
    ]
    return _lines(["Method", *(f"{FIGURES[name].title}{_arrow(name)}" for name in names)], rows)


def _cell(runs: Sequence[Numbers], name: str) -> str:
    found, unit = interval_of(runs, name), FIGURES[name].unit
    mean = shown(found.mean, unit)
    return mean if found.low is None else f"{mean} [{shown(found.low, unit)}, {shown(found.high, unit)}]"


def _arrow(name: str) -> str:
    return {"high": " ↑", "low": " ↓", "": ""}[FIGURES[name].better]


def _failed(problems: Sequence[Problem]) -> str:
    rows = [[one.method, one.run, one.where, one.error] for one in problems]
    return _lines(["Method", "Run", "Where", "What happened"], rows)


def _formulas() -> str:
    return "\n".join(
        f"- **{FIGURES[name].title}** = `{FIGURES[name].formula}`. {FIGURES[name].meaning}" for name in SUMMARY
    )


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in [head, ["---"] * len(head), *rows])


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;")
