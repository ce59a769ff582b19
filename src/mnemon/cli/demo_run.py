"""The demo: five concepts in sequence, by STAMINA and by plain LoRA, and what is left of each after the last."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from mnemon import api
from mnemon.data import concept_from_folder
from mnemon.evaluation import matrix_from_rows
from mnemon.evaluation.matrix import figures
from mnemon.files import write_json, write_png
from mnemon.library import Library, is_library
from mnemon.models import Base
from mnemon.report.library_page import Report, ceilings, method_report, write_report
from mnemon.sampling import image_strip
from mnemon.training import TrainingSettings
from mnemon.world import WorldConcept, thing_concept

CONCEPTS: tuple[WorldConcept, ...] = (
    thing_concept("sip", 201, "mug"),
    thing_concept("tom", 202, "cat"),
    thing_concept("zip", 203, "car"),
    thing_concept("bolt", 204, "robot"),
    thing_concept("brew", 205, "mug"),
)
"""Two of the five are mugs: concepts of one noun are the ones that overwrite each other."""
METHODS: tuple[str, ...] = ("stamina", "lora")
PHOTOS, REFERENCES = 5, 16  # trained on; scored against
SHOWN = 4  # images of a concept in a cell of the page


@dataclass
class DemoEvents:
    """Callbacks while the demo runs: before a concept, after a training step, after a row of scores."""

    on_start: Callable[[str, str], None] = lambda method, concept: None
    on_step: Callable[[int, int, Mapping[str, float]], None] = lambda done, total, logs: None
    on_row: Callable[[Library, dict[str, Any]], None] = lambda library, row: None


@dataclass
class _Run:
    library: Library
    images: dict[str, dict[int, list[Image.Image]]] = field(default_factory=dict)
    seconds: float = 0.0


def run_demo(
    out: Path, base: Base, events: DemoEvents | None = None, training: TrainingSettings | None = None
) -> dict[str, Any]:
    """Learn, score, write `report.html` and `summary.json` into `out`; a demo that was killed goes on.

    Returns the summary: {"methods": {name: {"learning_identity", "final_identity", "retention", "seconds"}}, ...}.
    """
    events = events or DemoEvents()
    for concept in CONCEPTS:
        concept.write(out / "photos" / concept.name, PHOTOS, seed=1)
    runs = {method: _learn_all(out, method, base, events, training) for method in METHODS}
    summary = {
        "methods": {method: _summary(run) for method, run in runs.items()},
        "concepts": {concept.name: concept.class_noun for concept in CONCEPTS},
        "base": base.name,
    }
    _write_page(out, runs, base)
    write_json(out / "summary.json", summary)
    return summary


def _learn_all(out: Path, method: str, base: Base, events: DemoEvents, training: TrainingSettings | None) -> _Run:
    """Learn all concepts into one library, each from its folder of photos, as a person would."""
    path, strips = out / method, out / "pictures" / method
    for concept in CONCEPTS:
        known = Library.open(path).names() if is_library(path) else []
        if concept.name in known:
            continue
        events.on_start(method, concept.name)
        outcome = api.learn(
            path,
            concept_from_folder(out / "photos" / concept.name, class_noun=concept.class_noun),
            base=base,
            method=method,
            references=concept.photos(REFERENCES, seed=2),
            training=training,
            on_step=events.on_step,
            on_images=partial(_keep, strips, len(known) + 1),
        )
        events.on_row(Library.open(path), outcome.row or {})
    # Rows, and with them images, that a kill between learning and scoring left out.
    api.evaluate(path, base=base, on_images=partial(_keep, strips))
    return _read_run(Library.open(path), strips)


def _keep(folder: Path, state: int, name: str | None, images: Tensor) -> None:
    """Keep the first images of every concept as one strip, so that a demo that goes on has them all."""
    if name is not None:
        write_png(folder / f"{state}-{name}.png", image_strip(images, SHOWN))


def _read_run(library: Library, strips: Path) -> _Run:
    run = _Run(library, seconds=sum(entry.settings["seconds"] for entry in library.history()))
    for state in range(1, library.revision + 1):
        for name in Library.open(library.path, at=state).names():
            with Image.open(strips / f"{state}-{name}.png") as strip:
                side = strip.height
                cells = [strip.crop((i * side, 0, (i + 1) * side, side)) for i in range(SHOWN)]
            run.images.setdefault(name, {})[state] = cells
    return run


def _summary(run: _Run) -> dict[str, float | None]:
    numbers = figures(matrix_from_rows(run.library.rows(), "identity_alignment"))
    return {
        "learning_identity": numbers["learning_accuracy"],
        "final_identity": numbers["final_average"],
        "retention": numbers["retention"],
        "seconds": run.seconds,
    }


def _write_page(out: Path, runs: Mapping[str, _Run], base: Base) -> None:
    notes = {
        "stamina": "Masked low-rank changes, with a penalty on entries that earlier concepts use.",
        "lora": "What most trainers do: one LoRA after another on the same model.",
    }
    photos: dict[str, Sequence[Image.Image]] = {
        concept.name: [photo.image for photo in concept.photos(SHOWN, seed=1).photos] for concept in CONCEPTS
    }
    report = Report(
        "Five concepts, one after another",
        "One text-to-image model is taught five things from five photos each, in sequence. After each step all things "
        "learned so far are sampled again with the same prompts and seeds, and compared with photos not trained on.",
        [method_report(run.library, run.images, notes[method], run.seconds) for method, run in runs.items()],
        photos=photos,
        facts={"base": base.name, "photos a concept": str(PHOTOS), "scored on": f"{REFERENCES} others"},
        ceilings=ceilings(next(iter(runs.values())).library),
    )
    write_report(out / "report.html", report)
