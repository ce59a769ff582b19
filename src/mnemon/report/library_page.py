"""One self-contained HTML page on one or more runs: images, matrices, forgetting, costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from mnemon.evaluation.matrix import ScoreMatrix, figures, retention
from mnemon.files import write_text
from mnemon.report import page
from mnemon.report.page import Images


@dataclass(frozen=True)
class MethodReport:
    """What one method made of the concepts.

    Attributes:
        name: the method, as in `mnemon methods`.
        identity, image: the score matrices.
        images: concept -> library state -> images drawn of it then, usually the same prompts and seeds throughout.
        general: library state -> text alignment of the base's general prompts; 0 for the bare base.
        costs: what it took, in words and numbers with units in the name: {"seconds to learn all": "212"}.
        note: one sentence to stand above its images.
    """

    name: str
    identity: ScoreMatrix
    image: ScoreMatrix
    images: Mapping[str, Mapping[int, Images]] = field(default_factory=dict)
    general: Mapping[int, float] = field(default_factory=dict)
    costs: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The page. Text is plain, not HTML.

    Attributes:
        photos: concept -> images that the person brought.
        facts: short facts for the head of the page: {"base": "world", "seed": "0"}.
        identity_ceilings, image_ceilings: concept -> what photos of it reach against one another.
    """

    title: str
    introduction: str
    methods: Sequence[MethodReport]
    photos: Mapping[str, Images] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    identity_ceilings: Mapping[str, float | None] = field(default_factory=dict)
    image_ceilings: Mapping[str, float | None] = field(default_factory=dict)


FIGURES: dict[str, tuple[str, str, Callable[[Sequence[float]], float]]] = {
    "learning_accuracy": ("Just learned", "mean identity alignment of each concept right after its step", max),
    "final_average": ("At the end", "mean identity alignment of all concepts after the last step", max),
    "retention": ("Kept", "at the end / just learned, mean over concepts", max),
    "forgetting_from_best": ("Forgetting, best − last", "mean over all but the last concept; lower is better", min),
    "forgetting_from_first": ("Forgetting, first − last", "the same from the first score on", min),
    "forgetting_one_step": ("Forgetting per step", "mean drop in one step, as CODA-Prompt counts it", min),
}
"""What the first table shows: figure -> name, meaning, which value is best."""


def write_report(path: Path, report: Report) -> None:
    """Write the page to `path`."""
    write_text(path, _page(report))


def _page(report: Report) -> str:
    style = files("mnemon.report").joinpath("library.css").read_text(encoding="utf-8")
    sections = [
        _summary(report),
        *(_images(report, method) for method in report.methods),
        *(_matrices(report, method) for method in report.methods),
        _costs(report),
        _reading(),
    ]
    return page.document(report.title, report.introduction, report.facts, sections, style)


def _summary(report: Report) -> str:
    numbers = [figures(method.identity) for method in report.methods]
    rows = []
    for key, (name, meaning, best) in FIGURES.items():
        values = [one[key] for one in numbers]
        digits = 3 if key != "retention" else 2
        rows.append((name, meaning, [page.number(value, digits) for value in values], _best(values, best)))
    if any(method.general for method in report.methods):
        rows.append(_general_row(report))
    lines = {method.name: _kept_over_time(method.identity) for method in report.methods}
    chart = page.curves(lines, "Identity kept of all concepts so far, after each step")
    table = page.numbers_table([method.name for method in report.methods], rows)
    return f'<section><h2>In short</h2><div class="pair">{table}{chart}</div></section>'


def _general_row(report: Report) -> tuple[str, str, list[str], int | None]:
    ends = [method.general[max(method.general)] if method.general else None for method in report.methods]
    bare = next((method.general[0] for method in report.methods if 0 in method.general), None)
    before = f"; {bare:.3f} before anything was learned" if bare is not None else ""
    meaning = f"text alignment (cosine) of prompts without a concept, at the end{before}"
    return "General prompts", meaning, [page.number(value) for value in ends], _best(ends, max)


def _best(values: Sequence[float | None], best: Callable[[Sequence[float]], float]) -> int | None:
    """The place of the best value, where there is something to compare and no tie."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or known.count(best(known)) > 1:
        return None
    return values.index(best(known))


def _kept_over_time(matrix: ScoreMatrix) -> list[tuple[int, float]]:
    states = range(1, len(matrix.states) + 1)
    return [
        (matrix.states[t - 1], retention(ScoreMatrix(matrix.names, matrix.states[:t], matrix.values[:t])))
        for t in states
    ]


def _images(report: Report, method: MethodReport) -> str:
    if not method.images:
        return ""
    states = sorted({state for shown in method.images.values() for state in shown})
    heads = "".join(f'<th scope="col">after {state}</th>' for state in states)
    photos = '<th scope="col">photos</th>' if report.photos else ""
    rows = "".join(_image_row(report, method, name, states) for name in method.images)
    note = f"<p>{escape(method.note)}</p>" if method.note else ""
    return (
        f"<section><h2>{escape(method.name)}: every concept after each step</h2>{note}"
        f'<div class="card wide"><table class="pictures"><caption>Same prompts and seeds in a row; framed: '
        f"just learned; below: identity alignment.</caption><thead><tr><td></td>{photos}{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _image_row(report: Report, method: MethodReport, name: str, states: Sequence[int]) -> str:
    cells = [f'<th scope="row">{escape(name)}</th>']
    if report.photos:
        cells.append(f'<td class="photos">{page.cell(report.photos.get(name, ()), f"photo of {name}")}</td>')
    shown = method.images[name]
    for state in states:
        new = " class=new" if state == min(shown) else ""
        score = f'<span class="score">{_score(method.identity, name, state)}</span>'
        drawn = page.cell(shown[state], f"{name} after step {state}") + score if state in shown else ""
        cells.append(f"<td{new}>{drawn}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _score(matrix: ScoreMatrix, name: str, state: int) -> str:
    if name not in matrix.names or state not in matrix.states:
        return ""
    value = matrix.values[matrix.states.index(state), matrix.names.index(name)]
    return "" if np.isnan(value) else page.number(float(value), 2)


def _matrices(report: Report, method: MethodReport) -> str:
    identity = page.heat_table(method.identity, "Identity alignment", report.identity_ceilings)
    image = page.heat_table(method.image, "Image alignment", report.image_ceilings)
    heading = f"<h2>{escape(method.name)}: the score matrices</h2>"
    return f'<section>{heading}<div class="pair">{identity}{image}</div></section>'


def _costs(report: Report) -> str:
    names = list(dict.fromkeys(name for method in report.methods for name in method.costs))
    if not names:
        return ""
    rows = [(name, "", [str(method.costs.get(name, "–")) for method in report.methods], None) for name in names]
    return f"<section><h2>Cost</h2>{page.numbers_table([method.name for method in report.methods], rows)}</section>"


def _reading() -> str:
    terms = {
        "Image and identity alignment": "Mean cosine between images drawn of a concept and its reference photos (not "
        "trained on, where there are enough), in the features of CLIP and of an encoder that knows one and the same "
        "thing again. Higher is better.",
        "photos": "The same number for photos of the concept against one another: about what can be reached.",
        "R[t, j]": "Score of concept j after step t. Rows are steps, columns concepts; a framed cell was just learned.",
        "kept": "Last score / first score of a concept. Read it with the score just learned: what was never learned "
        "cannot be forgotten.",
        "Forgetting": "Papers mean different formulas by the word, and their numbers differ several times over for one "
        "run. Compare only like with like.",
    }
    body = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms.items())
    return f"<section><h2>How to read this page</h2><dl>{body}</dl></section>"
