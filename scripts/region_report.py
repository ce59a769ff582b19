"""What the measurement of regions found: shares of concepts recognised, a line a method, and a sheet of images."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from scripts.layouts import COUNTS, Layout

ARMS = ("regions", "apart", "plain")
"""With regions by attention alone, with regions drawn apart first, and without regions."""
SHOWN, SIDE, GAP, LABEL = 8, 96, 4, 150  # images of each count in the sheet, and sizes in pixels


def shares(record: dict[str, Any], layouts: dict[int, list[Layout]]) -> dict[str, dict[str, Any]]:
    """For each count and arm the share of concepts recognised in their own box, in any box, and by kind of layout."""
    result = {}
    for key, seen in record["seen"].items():
        pairs = list(zip(layouts[int(key.split()[0])], seen, strict=True))
        kinds = sorted({layout.kind for layout, _ in pairs})
        result[key] = {
            "in_its_box": _share(pairs, lambda name, own, found: name == own),
            "in_any_box": _share(pairs, lambda name, own, found: name in found),
            "by_kind": {
                kind: _share([pair for pair in pairs if pair[0].kind == kind], lambda name, own, found: name == own)
                for kind in kinds
            },
        }
    return result


def _share(pairs: Sequence[tuple[Layout, list[str]]], right: Callable[[str, str, list[str]], bool]) -> float:
    """The share of concepts for which `right` (name, what is in its box, what is in all boxes) holds."""
    return statistics.mean(
        right(name, own, found) for layout, found in pairs for name, own in zip(layout.names, found, strict=True)
    )


def report(name: str, result: dict[str, Any]) -> str:
    found = "  ".join(f"{key} {one['in_its_box']:.1%}" for key, one in result["shares"].items())
    cost = "  ".join(f"{key} {share:.2f}" for key, share in result["cost"]["a_region"].items())
    alone = f"one alone {result['alone']:.1%}"
    return f"{name}: recognised in their boxes  {alone}  {found}  | a region costs, of a plain image  {cost}"


def image_of(out: Path, method: str, count: int, arm: str, index: int) -> Path:
    return out / "pictures" / f"{method}-{count}-{arm}-{index:02}.png"


def sheet(out: Path, methods: Sequence[str], layouts: Mapping[int, Sequence[Layout]]) -> Image.Image:
    """For each method and count a row of each arm's first images, boxes drawn in."""
    rows = [(method, count, arm) for method in methods for count in COUNTS for arm in ARMS]
    canvas = Image.new("RGB", (LABEL + SHOWN * (SIDE + GAP), len(rows) * (SIDE + GAP) + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (method, count, arm) in enumerate(rows):
        top = GAP + row * (SIDE + GAP)
        pen.text((4, top + SIDE // 2 - 12), f"{method}\n{count} concepts, {arm}", fill="black")
        for index, layout in enumerate(layouts[count][:SHOWN]):
            with Image.open(image_of(out, method, count, arm, index)) as image:
                cell = layout.framed(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            canvas.paste(cell, (LABEL + index * (SIDE + GAP), top))
    return canvas
