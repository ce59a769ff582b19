"""Variants of methods over one sequence of the world's concepts: what is learned, what is kept, what else changes.

    python -m scripts.sweep --out sweep.json lora stamina "stamina mask=none" "stamina forget=none"

The default concepts are development concepts: settings are chosen on these, never on those that results report.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemon.data import photos_tensor
from mnemon.evaluation import WorldEncoders, evaluate_row, reference_features, settings_for
from mnemon.evaluation.drift import zero_shot_drift
from mnemon.files import write_json
from mnemon.methods import Method, TrainedConcept, method_from
from mnemon.models import Base, load_base
from mnemon.sampling import Composed
from mnemon.training import TrainingSettings, make_tasks, train
from mnemon.world import WorldConcept, base_folder, thing_concept

CONCEPTS = ("mug:301", "cat:302", "boat:303", "robot:304", "mug:305")
PHOTOS, REFERENCES = 5, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", help="a method, with settings after it: 'stamina mask=none b0=4'")
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS, help="noun:seed, in order")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--together", type=int, default=1, help="concepts that learn in the same steps")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; variants it holds are not run again")
    asked = parser.parse_args()
    concepts = [
        thing_concept(f"c{seed}", int(seed), class_noun) for class_noun, seed in (c.split(":") for c in asked.concepts)
    ]
    groups = [concepts[start : start + asked.together] for start in range(0, len(concepts), asked.together)]
    base, encoders = load_base("world"), WorldEncoders(base_folder())
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for variant in asked.variants:
        if variant not in results:
            results[variant] = run(base, encoders, parse(variant), groups, asked.seed)
            write_json(asked.out, results)
        print(f"{variant:50s}", summary(results[variant]), flush=True)


def parse(variant: str) -> Method:
    """The method that "name key=value key=value" describes; values are JSON, or words."""
    name, *pairs = variant.split()
    settings = dict(pair.split("=", 1) for pair in pairs)
    return method_from(name, {key: _value(text) for key, text in settings.items()})


def run(
    base: Base, encoders: WorldEncoders, method: Method, groups: Sequence[Sequence[WorldConcept]], seed: int
) -> dict[str, Any]:
    """Learn all concepts, those of a group in the same steps; score each when just learned, and all at the end."""
    learned: list[TrainedConcept] = []
    concepts = [one for group in groups for one in group]
    references = {
        one.name: reference_features(encoders, photos_tensor(one.photos(REFERENCES, seed=2), base.resolution))
        for one in concepts
    }
    diagonal, seconds = [], 0.0
    settings = settings_for(encoders)
    for group in groups:
        photos = [one.photos(PHOTOS, seed=1) for one in group]
        began = time.monotonic()
        tasks = make_tasks(base, method, photos, learned, seed=seed)
        latest = train(base, method, tasks, learned, TrainingSettings(seed=seed))
        seconds += time.monotonic() - began
        learned += latest
        with Composed(base, method, learned) as composed:
            row = evaluate_row(composed, references, encoders, settings, only=[one.name for one in latest])
        diagonal += [{**row["concepts"][one.name], "facts": dict(one.facts)} for one in latest]
    last, general = scored(base, method, learned, references, encoders)
    drift = zero_shot_drift(encoders.image(general_by_bare(base, encoders)), encoders.image(general))
    return {"diagonal": diagonal, "last": last, "drift": drift, "seconds": seconds / len(concepts)}


@cache
def general_by_bare(base: Base, encoders: WorldEncoders) -> Tensor:
    """The general prompts' images by the bare base, the same for all variants."""
    return scored(base, method_from("lora"), [], {}, encoders)[1]


def scored(
    base: Base, method: Method, learned: Sequence[TrainedConcept], references: dict[str, Any], encoders: WorldEncoders
) -> tuple[dict[str, Any], Tensor]:
    """The row of all concepts, and the images of the general prompts."""
    general: list[Tensor] = []

    def keep(name: str | None, images: Tensor) -> None:
        if name is None:
            general.append(images)

    with Composed(base, method, learned) as composed:
        row = evaluate_row(composed, references, encoders, settings_for(encoders), on_images=keep)
    return row, torch.cat(general)


def summary(result: dict[str, Any]) -> str:
    just = [cell["identity_alignment"] for cell in result["diagonal"]]
    last = [cell["identity_alignment"] for cell in result["last"]["concepts"].values()]
    numbers = {
        "just": sum(just) / len(just),
        "last": sum(last) / len(last),
        "kept": sum(end / first for end, first in zip(last, just, strict=True)) / len(just),
        "text": sum(cell["text_alignment"] for cell in result["last"]["concepts"].values()) / len(just),
        "general": result["last"]["general"]["text_alignment"],
        "drift": result["drift"],
        "seconds": result["seconds"],
    }
    cells = " ".join(f"{value:.2f}" for value in just)
    facts = [list(cell["facts"].values())[:1] for cell in result["diagonal"]]
    return " ".join(f"{name} {value:.4f}" for name, value in numbers.items()) + f"  [{cells}] {facts}"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
