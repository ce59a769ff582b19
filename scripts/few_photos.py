"""Few photos of things that share nouns: learned together, against the same adapters each alone.

    python -m scripts.few_photos "fl2t" "fl2t transfer=shared" --photos 1 3 --out runs/few-photos

Alone is the first variant with step 1 to the end (share=1): then an image trains its own concept's adapter and nothing
else, in the same steps as the other concepts only so that both sides draw the same photos, noise and timesteps. The
default concepts are development concepts: settings are chosen on these, never on those that results report. Started
again, it goes on.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mnemon.evaluation import EvalSettings, WorldEncoders, evaluate
from mnemon.evaluation.intervals import interval
from mnemon.files import write_json
from mnemon.methods import Method, TrainedConcept, method_settings, method_with
from mnemon.models import Base, load_base
from mnemon.sampling import Composed
from mnemon.training import TrainingSettings, make_tasks, train
from mnemon.world import WorldConcept, base_folder
from scripts.common import machine, references_of
from scripts.relevance import CONCEPTS, named_concepts, rank_correlations
from scripts.sweep import parse

SCORE = EvalSettings(num_images=8, num_inference_steps=10)  # every evaluation prompt once
ALONE = "alone"
FIGURES = ("image_alignment", "identity_alignment", "text_alignment")
Rows = dict[str, dict[str, dict[str, Any]]]
"""Variant -> number of photos -> concept -> scores, facts and seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", help="a method, with settings after it: 'fl2t steps=60 transfer=add'")
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS, help="noun:seed")
    parser.add_argument("--photos", nargs="+", type=int, default=(1, 2, 3, 5), help="of each concept")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    asked = parser.parse_args()
    concepts = named_concepts(asked.concepts)
    base, encoders = load_base("world"), WorldEncoders(base_folder())
    references = references_of(base, encoders, concepts)
    file = asked.out / "rows.json"
    rows: Rows = json.loads(file.read_text()) if file.exists() else {}
    methods = {variant: parse(variant) for variant in asked.variants}
    sides = {ALONE: method_with(methods[asked.variants[0]], {"share": 1.0})} | methods
    for count in asked.photos:
        for side, method in sides.items():
            if str(count) not in rows.setdefault(side, {}):
                rows[side][str(count)] = scores(base, method, concepts, count, asked.seed, references, encoders)
                write_json(file, rows)
            print(f"{count} {side:50s}", line(rows, side, str(count)), flush=True)
    write_json(asked.out / "summary.json", summary(rows, references))
    write_json(asked.out / "settings.json", settings(base, sides, asked))


def scores(
    base: Base,
    method: Method,
    concepts: Sequence[WorldConcept],
    count: int,
    seed: int,
    references: Mapping[str, Any],
    encoders: WorldEncoders,
) -> dict[str, Any]:
    """Learn the concepts from `count` photos each, in the same steps, and score them: by name."""
    began = time.monotonic()
    tasks = make_tasks(base, method, [one.photos(count, seed=1) for one in concepts], seed=seed)
    learned: list[TrainedConcept] = train(base, method, tasks, settings=TrainingSettings(seed=seed))
    seconds = (time.monotonic() - began) / len(concepts)
    with Composed(base, method, learned) as composed:
        row = evaluate(composed, references, encoders, SCORE, control=False)
    return {one.name: {**row.concepts[one.name], "facts": dict(one.facts), "seconds": seconds} for one in learned}


def values(rows: Rows, side: str, count: str, figure: str) -> list[float]:
    return [cell[figure] for cell in rows[side][count].values()]


def gain(rows: Rows, side: str, count: str, figure: str) -> dict[str, Any]:
    """By how much the side is ahead of each concept alone, as a share of the mean of all alone; over concepts."""
    alone, together = (rows[ALONE][count], rows[side][count])
    mean = sum(values(rows, ALONE, count, figure)) / len(alone)
    return asdict(interval([(together[name][figure] - alone[name][figure]) / mean for name in alone]))


def line(rows: Rows, side: str, count: str) -> str:
    numbers = {figure: interval(values(rows, side, count, figure)).mean for figure in FIGURES}
    means = " ".join(f"{figure} {mean:.4f}" for figure, mean in numbers.items())
    ahead = gain(rows, side, count, FIGURES[0])
    return f"{means}  image {100 * ahead['mean']:+.1f} %"


def summary(rows: Rows, references: Mapping[str, Any]) -> dict[str, Any]:
    """As other results' summary, with intervals over concepts (`runs`), for each number of photos and over all of them;
    `gain` is of together over alone."""
    by_count: dict[str, Any] = {}
    for side, counts in rows.items():
        for count in counts:
            figures = {figure: asdict(interval(values(rows, side, count, figure))) for figure in FIGURES}
            cell = by_count.setdefault(count, {"methods": {}})["methods"].setdefault(side, figures)
            if side != ALONE:
                cell["gain"] = {figure: gain(rows, side, count, figure) for figure in FIGURES}
                cell["relevance"] = rank_correlations(rows[side][count], references)
    pooled = {side: {figure: _over_counts(rows, side, figure) for figure in FIGURES} for side in rows}
    return {"methods": pooled, "photos": by_count}


def _over_counts(rows: Rows, side: str, figure: str) -> dict[str, Any]:
    """Of each concept's mean over the numbers of photos."""
    counts = list(rows[side])
    concepts = zip(*(values(rows, side, count, figure) for count in counts), strict=True)
    return asdict(interval([sum(one) / len(counts) for one in concepts]))


def settings(base: Base, sides: Mapping[str, Method], asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "methods": {side: method_settings(method) for side, method in sides.items()},
        "concepts": list(asked.concepts),
        "photos": list(asked.photos),
        "seed": asked.seed,
        "score": SCORE.to_json(),
        "machine": machine(base),
    }


if __name__ == "__main__":
    main()
