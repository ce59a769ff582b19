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

from torch import Tensor

from mnemon.cli.options import setting_of
from mnemon.data import photos_tensor
from mnemon.evaluation import EvalRow, EvalSettings, WorldEncoders, evaluate, reference_features
from mnemon.evaluation.alignment import zero_shot_drift
from mnemon.evaluation.evaluate import default_prompts
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
    return method_from(name, dict(setting_of(pair) for pair in pairs))


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
    for group in groups:
        photos = [one.photos(PHOTOS, seed=1) for one in group]
        began = time.monotonic()
        tasks = make_tasks(base, method, photos, learned, seed=seed)
        latest = train(base, method, tasks, learned, TrainingSettings(seed=seed))
        seconds += time.monotonic() - began
        learned += latest
        with Composed(base, method, learned) as composed:
            prompts = default_prompts(composed, encoders, EvalSettings())
            prompts = {one.name: prompts[one.name] for one in latest}
            row = evaluate(composed, references, encoders, prompts=prompts, control=False)
        diagonal += [{**row.concepts[one.name], "facts": dict(one.facts)} for one in latest]
    last = scored(base, method, learned, references, encoders)
    drift = zero_shot_drift(general_by_bare(base, encoders), last.features[None]["image"])
    return {"diagonal": diagonal, "last": last.to_json(), "drift": drift, "seconds": seconds / len(concepts)}


@cache
def general_by_bare(base: Base, encoders: WorldEncoders) -> Tensor:
    """Features of the control prompts' images by the bare base, the same for all variants."""
    return scored(base, method_from("lora"), [], {}, encoders).features[None]["image"]


def scored(
    base: Base, method: Method, learned: Sequence[TrainedConcept], references: dict[str, Any], encoders: WorldEncoders
) -> EvalRow:
    with Composed(base, method, learned) as composed:
        return evaluate(composed, references, encoders)


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


if __name__ == "__main__":
    main()
