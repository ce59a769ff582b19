"""The page of `mnemon preview`: every concept of a library at the same prompts and seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mnemon.library import Library
from mnemon.report.images import ImageCell, ImageGrid
from mnemon.report.rendering import write_page


def write_preview(
    path: Path,
    library: Library,
    cells: Mapping[str, Mapping[str, ImageCell]],
    columns: Sequence[str],
    prompts: Sequence[str],
    num_images_per_prompt: int,
) -> Path:
    """Write the page to `path`; `cells` are by concept and column, of which one may be missing."""
    rows = {name: [of_concept.get(column) for column in columns] for name, of_concept in cells.items()}
    return write_page(
        path,
        "preview.html",
        title=f"All concepts of {library.path.resolve().name}",
        introduction="The same prompts and seeds every time; numbers are identity alignment where it was measured.",
        facts={
            "base": library.base_name,
            "method": library.method.name,
            "revision": str(library.revision),
            "prompts": ", ".join(prompts),
            "seeds": f"0 to {num_images_per_prompt - 1}",
        },
        grid=ImageGrid(columns, rows),
    )
