"""Grids of images: a row a concept, a column a step or a method; and those of a benchmark's runs."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from PIL import Image

from mnemon.evaluation.run_record import RunRecord

COLUMNS = (1, 10, 25, 50)  # after how many concepts images are shown, and at the end
SIDE_BY_SIDE = 12  # concepts, at the most, that all methods are shown next to each other for
_SIDE = 256  # pixels; larger images are made smaller


@dataclass(frozen=True)
class Thumbnail:
    """An image as it stands in a page: a data URI and its size in pixels."""

    src: str
    width: int
    height: int


def thumbnail(image: Image.Image) -> Thumbnail:
    """The image at 256 pixels a side at the most: PNG where it is small, else WebP."""
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    kind = "png" if max(small.size) <= 128 else "webp"
    buffer = BytesIO()
    small.save(buffer, kind, quality=82)
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *small.size)


@dataclass(frozen=True)
class ImageCell:
    """Images by their alternative text, side by side; without any, the cell says that there is no image.

    Attributes:
        score: identity alignment, below the images.
        kind: "new" frames the images of a concept just learned, "photos" sets reference photos apart.
    """

    images: Mapping[str, Sequence[Thumbnail]] = field(default_factory=dict)
    score: float | None = None
    kind: Literal["", "new", "photos"] = ""


@dataclass(frozen=True)
class ImageGrid:
    """Rows by name, each with a cell a column; None leaves a cell empty."""

    columns: Sequence[str]
    rows: Mapping[str, Sequence[ImageCell | None]]
    caption: str = ""


def side_by_side(runs: Mapping[str, RunRecord]) -> ImageGrid | None:
    """Rows concepts, columns methods, all after the last concept; a run of each method with its images."""
    if len(runs) < 2:
        return None
    names = _spread(sorted(next(iter(runs.values())).names), SIDE_BY_SIDE)
    rows = {
        name: [_cell(run, len(run.names), name, f"{method}: {name} at the end") for method, run in runs.items()]
        for name in names
    }
    return ImageGrid(list(runs), rows, "The same prompts and seeds for all; below: identity alignment")


def over_time(record: RunRecord) -> list[ImageGrid]:
    """Every concept of a run just learned, after concept 1, 10, 25, 50, and at the end; and several in one image."""
    steps, count = columns_of(record), len(record.names)
    columns = ["just learned", *(f"after {t}" if t < count else f"after {t}, the end" for t in steps)]
    rows = {
        f"{place}. {name}": [
            _cell(record, place, name, f"{name} just learned", "new"),
            *(_cell(record, t, name, f"{name} after concept {t}") if t >= place else None for t in steps),
        ]
        for place, name in enumerate(record.names, start=1)
    }
    caption = f"{record.method}: concepts in the order in which they were learned"
    return [ImageGrid(columns, rows, caption), *_together(record)]


def columns_of(record: RunRecord) -> list[int]:
    """After which concepts there are images of all learned so far, of those that are shown."""
    count = len(record.names)
    whole = [t for t in COLUMNS if t < count and all((t, name) in record.strips for name in record.names[:t])]
    return [*whole, count]


def _together(record: RunRecord) -> list[ImageGrid]:
    """Several concepts in one image, at the end."""
    count = len(record.names)
    keys = [name for t, name in record.strips if t == count and name not in record.names]
    rows = {key.replace("+", " + "): [_cell(record, count, key, f"{key} together")] for key in keys}
    return [ImageGrid(["at the end"], rows, f"{record.method}: several concepts in one image")] if rows else []


def _cell(record: RunRecord, t: int, name: str, alt: str, kind: Literal["", "new"] = "") -> ImageCell:
    path = record.strips.get((t, name))
    if path is None:
        return ImageCell()
    with Image.open(path) as image:
        return ImageCell({alt: [thumbnail(image)]}, record.cell(t, name).get("identity_alignment"), kind)


def _spread(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of them, evenly spread."""
    if len(names) <= count:
        return list(names)
    return [names[round(place * (len(names) - 1) / (count - 1))] for place in range(count)]
