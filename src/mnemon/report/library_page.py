"""The page on one or more libraries: images, matrices, forgetting, costs. `mnemon evaluate` and the demo write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mnemon.evaluation.figures import MATRIX_FIGURES
from mnemon.evaluation.matrix import ScoreMatrix, figures, matrix_from_rows, retention
from mnemon.library import Library
from mnemon.report.charts import line_chart
from mnemon.report.formatting import number, shown
from mnemon.report.images import ImageCell, ImageGrid, thumbnail
from mnemon.report.matrices import matrix_table
from mnemon.report.plots import plot_curves, plot_matrix
from mnemon.report.rendering import write_page
from mnemon.report.tables import Cell, Column, NumberTable, Row, with_best

Images = Sequence[Image.Image]
SUMMARY = (
    "learning_accuracy", "final_average", "retention", "forgetting_from_best", "forgetting_from_first",
    "forgetting_one_step",
)  # fmt: skip


@dataclass(frozen=True)
class MethodReport:
    """What one method made of the concepts.

    Attributes:
        name: the method, as in `mnemon methods`.
        identity, image: the score matrices.
        images: concept -> revision of the library -> images sampled then, usually of the same prompts and seeds.
        general: revision -> text alignment of the base's general prompts; 0 for the bare base.
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
        photos: concept -> reference photos.
        facts: short facts for the head of the page: {"base": "world", "seed": "0"}.
        ceilings: "identity" or "image" -> concept -> what photos of it reach against one another.
    """

    title: str
    introduction: str
    methods: Sequence[MethodReport]
    photos: Mapping[str, Images] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    ceilings: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


def method_report(
    library: Library,
    images: Mapping[str, Mapping[int, Images]] | None = None,
    note: str = "",
    seconds: float | None = None,
) -> MethodReport:
    """What a library's rows say of its method."""
    rows = library.rows()
    stored = [entry.stored_bytes for entry in library.concepts().values()]
    costs = {"kB stored a concept": f"{sum(stored) / max(len(stored), 1) / 1000:.0f}"}
    if seconds is not None:
        costs["seconds of training"] = f"{seconds:.0f}"
    return MethodReport(
        library.method.name,
        matrix_from_rows(rows, "identity_alignment"),
        matrix_from_rows(rows, "image_alignment"),
        images or {},
        {state: row["general"]["text_alignment"] for state, row in rows.items()},
        costs,
        note,
    )


def ceilings(library: Library) -> dict[str, dict[str, float | None]]:
    """ "identity" or "image" -> concept -> what its references reach against one another."""
    rows = library.rows()
    concepts = rows[max(rows)]["concepts"] if rows else {}
    kinds = ("identity", "image")
    return {kind: {name: scores[f"{kind}_ceiling"] for name, scores in concepts.items()} for kind in kinds}


def write_evaluation(library: Library, folder: Path) -> Path:
    """Plots as PNG and one HTML page of a library's whole score matrix; returns the page."""
    known = ceilings(library)
    for kind in ("identity", "image", "text"):
        matrix = matrix_from_rows(library.rows(), f"{kind}_alignment")
        if matrix.names:
            plot_matrix(folder / f"{kind}-matrix.png", matrix, f"{kind} alignment")
            plot_curves(folder / f"{kind}-curves.png", matrix, f"{kind} alignment", known.get(kind, {}))
    report = Report(
        f"What {library.path.resolve().name} knows",
        f"{len(library.names())} concepts learned on the base '{library.public_base}' with {library.method.name}.",
        [method_report(library)],
        facts={"base": library.public_base, "method": library.method.name, "revision": str(library.revision)},
        ceilings=known,
    )
    return write_report(folder / "report.html", report)


def write_report(path: Path, report: Report) -> Path:
    """Write the page to `path`, and return that."""
    retained = {method.name: _retention_over_time(method.identity) for method in report.methods}
    return write_page(
        path,
        "library.html",
        title=report.title,
        introduction=report.introduction,
        facts=report.facts,
        summary=_summary(report),
        retained=line_chart(retained, "Identity retained of all concepts so far, after each step"),
        methods=[_method(report, method) for method in report.methods],
        costs=_costs(report),
        figures=[MATRIX_FIGURES[name] for name in SUMMARY],
    )


def _summary(report: Report) -> NumberTable:
    """A row a figure, a column a method."""
    numbers = [figures(method.identity) for method in report.methods]
    rows = []
    for name in SUMMARY:
        figure = MATRIX_FIGURES[name]
        cells = [Cell(shown(values[name], figure.unit), values[name]) for values in numbers]
        rows.append(Row(figure.title, with_best(cells, figure.better), figure.meaning))
    if any(method.general for method in report.methods):
        rows.append(_general_row(report))
    return NumberTable([Column(method.name) for method in report.methods], rows)


def _general_row(report: Report) -> Row:
    ends = [method.general[max(method.general)] if method.general else None for method in report.methods]
    bare = next((method.general[0] for method in report.methods if 0 in method.general), None)
    before = f"; {bare:.3f} before anything was learned" if bare is not None else ""
    meaning = f"text alignment (cosine) of prompts without a concept, at the end{before}"
    return Row("General prompts", with_best([Cell(number(value), value) for value in ends], "high"), meaning)


def _retention_over_time(matrix: ScoreMatrix) -> list[tuple[int, float]]:
    return [
        (state, retention(ScoreMatrix(matrix.names, matrix.states[:t], matrix.values[:t])))
        for t, state in enumerate(matrix.states, start=1)
    ]


def _method(report: Report, method: MethodReport) -> dict[str, object]:
    return {
        "name": method.name,
        "note": method.note,
        "images": _images(report, method) if method.images else None,
        "identity": matrix_table(method.identity, "Identity alignment", report.ceilings.get("identity", {})),
        "image": matrix_table(method.image, "Image alignment", report.ceilings.get("image", {})),
    }


def _images(report: Report, method: MethodReport) -> ImageGrid:
    states = sorted({state for images in method.images.values() for state in images})
    rows: dict[str, list[ImageCell | None]] = {}
    for name, images in method.images.items():
        cells = [_image_cell(method, name, state) if state in images else None for state in states]
        rows[name] = [_photos(report, name), *cells] if report.photos else cells
    caption = "Same prompts and seeds in a row; framed: just learned; below: identity alignment."
    return ImageGrid([*(["photos"] if report.photos else []), *(f"after {state}" for state in states)], rows, caption)


def _photos(report: Report, name: str) -> ImageCell | None:
    photos = [thumbnail(photo) for photo in report.photos.get(name, ())]
    return ImageCell({f"photo of {name}": photos}, kind="photos") if photos else None


def _image_cell(method: MethodReport, name: str, state: int) -> ImageCell:
    images = method.images[name]
    shown_images = {f"{name} after step {state}": [thumbnail(image) for image in images[state]]}
    return ImageCell(shown_images, _score(method.identity, name, state), "new" if state == min(images) else "")


def _score(matrix: ScoreMatrix, name: str, state: int) -> float | None:
    if name not in matrix.names or state not in matrix.states:
        return None
    value = float(matrix.values[matrix.states.index(state), matrix.names.index(name)])
    return None if np.isnan(value) else value


def _costs(report: Report) -> NumberTable:
    names = dict.fromkeys(name for method in report.methods for name in method.costs)
    rows = [Row(name, [Cell(str(method.costs.get(name, "–"))) for method in report.methods]) for name in names]
    return NumberTable([Column(method.name) for method in report.methods], rows)
