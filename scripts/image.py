"""The README's image from a finished demo: `python -m scripts.image demo docs/images/demo.png`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mnemon.cli.demo_run import CONCEPTS, METHODS, SHOWN

SIDE, GAP, LABEL = 96, 8, 110
EACH = 2  # images of a concept in a row


def main(demo: Path, to: Path) -> None:
    rows = {"photos": _photos(demo)} | {f"{method}, at the end": _last(demo, method) for method in METHODS}
    width = LABEL + len(CONCEPTS) * (EACH * SIDE + GAP)
    canvas = Image.new("RGB", (width, len(rows) * (SIDE + GAP) + 18), "white")
    pen = ImageDraw.Draw(canvas)
    for column, concept in enumerate(CONCEPTS):
        pen.text((LABEL + column * (EACH * SIDE + GAP), 2), f"<{concept.name}>, {concept.class_noun}", fill="black")
    for row, (name, images) in enumerate(rows.items()):
        top = 18 + row * (SIDE + GAP)
        pen.text((4, top + SIDE // 2 - 6), name, fill="black")
        for column, cells in enumerate(images):
            for index, cell in enumerate(cells[:EACH]):
                left = LABEL + column * (EACH * SIDE + GAP) + index * SIDE
                canvas.paste(cell.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
    to.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(to)


def _photos(demo: Path) -> list[list[Image.Image]]:
    return [
        [Image.open(demo / "photos" / concept.name / f"{index:02}.png") for index in range(EACH)]
        for concept in CONCEPTS
    ]


def _last(demo: Path, method: str) -> list[list[Image.Image]]:
    """The first images of every concept after the last one was learned."""
    strips = [Image.open(demo / "pictures" / method / f"{len(CONCEPTS)}-{concept.name}.png") for concept in CONCEPTS]
    cells = [np.split(np.asarray(strip), SHOWN, axis=1) for strip in strips]
    return [[Image.fromarray(cell) for cell in row] for row in cells]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
