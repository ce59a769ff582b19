"""From libraries to their pages: what `mnemon evaluate` and the demo write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mnemon.evaluation import matrix_from_rows
from mnemon.library import Library
from mnemon.report.library_page import MethodReport, Report, write_report
from mnemon.report.plots import plot_curves, plot_matrix

Grids = Mapping[str, Mapping[int, Sequence[Image.Image]]]
"""Concept -> revision of the library -> images sampled then."""


def method_report(
    library: Library, images: Grids | None = None, note: str = "", seconds: float | None = None
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


def ceilings(library: Library, kind: str) -> dict[str, float | None]:
    """Concept -> what its references reach against one another; `kind` is "identity" or "image"."""
    newest = library.rows()
    concepts = newest[max(newest)]["concepts"] if newest else {}
    return {name: scores[f"{kind}_ceiling"] for name, scores in concepts.items()}


def write_evaluation(library: Library, folder: Path) -> Path:
    """Plots as PNG and one HTML page of a library's whole score matrix; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("identity", "image", "text"):
        matrix = matrix_from_rows(library.rows(), f"{kind}_alignment")
        if matrix.names:
            known = ceilings(library, kind) if kind != "text" else {}
            plot_matrix(folder / f"{kind}-matrix.png", matrix, f"{kind} alignment")
            order = [known.get(name) for name in matrix.names]
            plot_curves(folder / f"{kind}-curves.png", matrix, f"{kind} alignment", order)
    page = folder / "report.html"
    report = Report(
        f"What {library.path.name} knows",
        f"{len(library.names())} concepts learned on the base '{library.base_name}' with {library.method.name}.",
        [method_report(library)],
        facts={"base": library.base_name, "method": library.method.name, "revision": str(library.revision)},
        identity_ceilings=ceilings(library, "identity"),
        image_ceilings=ceilings(library, "image"),
    )
    write_report(page, report)
    return page
