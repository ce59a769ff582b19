"""Variants of methods over one sequence of the world's concepts: what is learned, what is kept, what else changes.

    python -m scripts.sweep --protocol level lora stamina "stamina mask=none" "stamina forget=none"

The default concepts are development concepts, two nouns twice and two styles: settings are chosen on such, never on
those that results report. Every row is kept under the command that makes it again.
"""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.benchmark.protocols import LEVEL, PAPER, PROTOCOLS, method_by
from mnemon.cli.options import setting_of
from mnemon.evaluation import EvalRow, EvalSettings, WorldEncoders, evaluate
from mnemon.evaluation.alignment import zero_shot_drift
from mnemon.evaluation.prompts import concept_prompts, prompt_set
from mnemon.files import write_json
from mnemon.methods import Method, TrainedConcept, method_from, method_with
from mnemon.models import Base, load_base
from mnemon.sampling import Composed
from mnemon.training import Examples, TrainingSettings, make_tasks, train
from mnemon.training.generated import calibration_images
from mnemon.world import WorldConcept, base_folder, style_concept, thing_concept
from mnemon.world.styles import FAMILIES
from scripts.common import machine, references_of

CONCEPTS = ("mug:301", "cat:302", "mug:305", "ink:311", "cat:312", "poster:313")
PHOTOS = 5
Group = Sequence[WorldConcept]


@dataclass(frozen=True)
class Setup:
    """On what variants are tried; `groups` of concepts learn in the same steps."""

    base: Base
    encoders: WorldEncoders
    groups: Sequence[Group]
    seed: int
    settings: EvalSettings

    @property
    def concepts(self) -> list[WorldConcept]:
        return [one for group in self.groups for one in group]

    @cached_property
    def references(self) -> dict[str, dict[str, Tensor]]:
        return references_of(self.base, self.encoders, self.concepts)

    @cached_property
    def calibration(self) -> Examples | None:
        """Made once for all concepts and variants."""
        return calibration_images(self.base, method_from("cns", {"score": "grad"}))

    @cached_property
    def bare(self) -> Tensor:
        """Features of the control prompts' images by the bare base."""
        return self.score(method_from("lora"), [], [], control=True).features[None]["image"]

    def train(self, method: Method, group: Group, earlier: Sequence[TrainedConcept]) -> list[TrainedConcept]:
        photos = [one.photos(PHOTOS, seed=1) for one in group]
        calibration = self.calibration if method.needs_calibration else None
        tasks = make_tasks(self.base, method, photos, earlier, seed=self.seed, calibration=calibration)
        return train(self.base, method, tasks, earlier, TrainingSettings(seed=self.seed))

    def score(
        self, method: Method, learned: Sequence[TrainedConcept], asked: Group, *, control: bool = False
    ) -> EvalRow:
        """Of the concepts `asked`, with all that are `learned` in the model."""
        settings, chosen = self.settings, prompt_set(self.encoders.prompts)
        prompts = {
            one.name: concept_prompts(
                method.prompt_name(one.name, one.class_noun),
                one.class_noun,
                chosen,
                settings.num_images,
                kind="style" if one.style else "thing",
            )
            for one in asked
        }
        with Composed(self.base, method, learned) as composed:
            return evaluate(composed, self.references, self.encoders, settings, prompts=prompts, control=control)


def main() -> None:
    asked = parsed()
    concepts = [concept(text) for text in asked.concepts]
    groups = [concepts[start : start + asked.together] for start in range(0, len(concepts), asked.together)]
    settings = EvalSettings(asked.num_images, num_inference_steps=asked.num_inference_steps)
    setup = Setup(load_base("world"), WorldEncoders(base_folder()), groups, asked.seed, settings)
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for variant in asked.variants:
        row = command(asked, variant)
        if row not in results:
            results[row] = run(setup, parse(variant, asked.protocol), asked.alone) | {"made": machine(setup.base)}
            write_json(asked.out, results)
        print(f"{row}\n    {summary(results[row])}", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", help="a method, with settings after it: 'stamina mask=none b0=4'")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default=PAPER, help="settings before those of a variant")
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS, help="noun:seed or style:seed, in order")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--together", type=int, default=1, help="concepts that learn in the same steps")
    parser.add_argument("--alone", action=argparse.BooleanOptionalAction, help="also each alone; by default with level")
    parser.add_argument("--num-images", type=int, default=16, help="of a concept in each of its scores")
    parser.add_argument("--num-inference-steps", type=int, default=20, help="of such an image")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep.json"), help="rows it holds are not run again")
    asked = parser.parse_args()
    asked.alone = asked.protocol == LEVEL if asked.alone is None else asked.alone
    return asked


def command(asked: argparse.Namespace, variant: str) -> str:
    """The command that makes the row of a variant."""
    options = ["--protocol", asked.protocol, "--seed", asked.seed, "--together", asked.together]
    options += ["--num-images", asked.num_images, "--num-inference-steps", asked.num_inference_steps]
    alone = "--alone" if asked.alone else "--no-alone"
    words = ["python", "-m", "scripts.sweep", variant, *options, alone, "--concepts", *asked.concepts]
    return shlex.join(str(word) for word in words)


def concept(text: str) -> WorldConcept:
    """The thing or style that "noun:seed" or "style:seed" stands for."""
    kind, seed = text.split(":")
    name = f"c{seed}"
    return style_concept(name, int(seed), kind) if kind in FAMILIES else thing_concept(name, int(seed), kind)


def parse(variant: str, protocol: str = PAPER) -> Method:
    """The method that "name key=value key=value" describes; values are JSON, or words."""
    name, *pairs = variant.split()
    return method_with(method_by(protocol, name), dict(setting_of(pair) for pair in pairs))


def run(setup: Setup, method: Method, alone: bool) -> dict[str, Any]:
    """Learn all concepts, those of a group in the same steps; score each when just learned, and all at the end."""
    learned: list[TrainedConcept] = []
    diagonal, seconds = [], 0.0
    for group in setup.groups:
        began = time.monotonic()
        latest = setup.train(method, group, learned)
        seconds += time.monotonic() - began
        learned += latest
        cells = setup.score(method, learned, group).concepts
        diagonal += [{**cells[one.name], "facts": dict(one.facts)} for one in latest]
    last = setup.score(method, learned, setup.concepts, control=True)
    return {
        "diagonal": diagonal,
        "last": last.to_json(),
        "drift": zero_shot_drift(setup.bare, last.features[None]["image"]),
        "seconds": seconds / len(learned),
        **({"alone": scores_alone(setup, method, learned, diagonal[0])} if alone else {}),
    }


def scores_alone(
    setup: Setup, method: Method, learned: Sequence[TrainedConcept], first: dict[str, Any]
) -> list[dict[str, Any]]:
    """Of each concept by the same recipe on the bare base, with no other in the model; `first` are the scores of the
    first one just learned."""
    scores = [first] if len(setup.groups[0]) == 1 else []
    for one, trained in list(zip(setup.concepts, learned, strict=True))[len(scores) :]:
        own = trained if method.independent else setup.train(method, [one], [])[0]
        scores.append(setup.score(method, [own], [one]).concepts[one.name])
    return scores


def summary(result: dict[str, Any]) -> str:
    just = [cell["identity_alignment"] for cell in result["diagonal"]]
    last = [cell["identity_alignment"] for cell in result["last"]["concepts"].values()]
    alone = [cell["identity_alignment"] for cell in result.get("alone", [])]
    numbers = {
        **({"alone": sum(alone) / len(alone)} if alone else {}),
        "just": sum(just) / len(just),
        "last": sum(last) / len(last),
        **({"of alone": sum(last) / sum(alone)} if alone else {}),
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
