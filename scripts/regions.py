"""Several concepts in one image: how many are recognised in their places, with regions and without; and the cost.

    python -m scripts.regions --out regions
    python -m scripts.regions --out try --concepts c301:mug:301 c302:cat:302 c303:boat:303 c304:robot:304 --layouts 2

A layout splits the image into boxes and gives each a concept and all of them one place. Its image is drawn three
times with one seed: with a region for each box by attention alone, with the regions drawn apart first, and from the one
prompt that names all concepts. A concept is recognised if, of all that were learned, its reference images are nearest
to what is in its box, by the identity encoder. Beside it stand the share recognised of images of one concept alone,
and the ceiling: that of photos of the concepts, made smaller to fit into the boxes.

A run that was stopped goes on where it stopped. The default concepts are those that results report.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.data import photos_tensor
from mnemon.errors import MnemonError
from mnemon.evaluation import WorldEncoders
from mnemon.evaluation.confusion import nearest_concepts
from mnemon.files import write_json
from mnemon.library import Library
from mnemon.methods import METHODS, Method, method_from, method_settings
from mnemon.models import load_base
from mnemon.sampling import Composed, SamplingSettings, to_image
from mnemon.sampling.composing import compose_library
from mnemon.sampling.per_region import sample_per_region
from mnemon.sampling.precision import bf16_autocast
from mnemon.training import make_tasks, train
from mnemon.world import WorldConcept, base_folder, thing_concept
from scripts.common import machine, now
from scripts.layouts import COUNTS, Layout, crops, layouts_of
from scripts.region_report import ARMS, SHOWN, image_of, report, shares, sheet

CONCEPTS = ("dog1:dog:1011", "teapot1:teapot:1012", "cat1:cat:1013", "boat1:boat:1014", "robot1:robot:1015",
            "dog2:dog:1017")  # fmt: skip
COMPARED = ("stamina", "cns", "mix-of-show", "lora-compose")
GOALS = {2: 0.8, 4: 0.6}
COST_GOAL = 1.15
PHOTOS, REFERENCES, CEILING = 5, 16, 8
GUIDANCE, BATCH = 4.0, 8


@dataclass(frozen=True)
class Asked:
    """What is measured; a folder holds one measurement only."""

    concepts: Sequence[str]
    layouts: int
    training_steps: int
    sampling_steps: int
    seed: int
    rounds: int

    def concept(self, text: str) -> WorldConcept:
        name, class_noun, seed = text.split(":")
        return thing_concept(name, int(seed), class_noun)


class Measurement:
    """One folder: `asked.json`, a library and a record for each method, the first images, results and sheet."""

    def __init__(self, out: Path, asked: Asked) -> None:
        self.out, self.asked = out, asked
        self.things = [asked.concept(text) for text in asked.concepts]
        self.base, self.encoders = load_base("world"), WorldEncoders(base_folder())
        self._claim()
        nouns = {thing.name: thing.class_noun or "" for thing in self.things}
        self.layouts = {count: layouts_of(nouns, count, asked.layouts, asked.seed) for count in COUNTS}

    def _claim(self) -> None:
        path, mine = self.out / "asked.json", json.loads(json.dumps(asdict(self.asked)))
        if path.exists() and json.loads(path.read_text()) != mine:
            raise MnemonError(f"The folder {self.out} holds another measurement (see asked.json): choose another.")
        write_json(path, mine)

    @cached_property
    def references(self) -> list[Tensor]:
        """Identity features (16, d) of each concept."""
        return [self._features(thing.photos(REFERENCES, seed=2)) for thing in self.things]

    def recognised(self, parts: Tensor) -> list[str]:
        """The concept that each of (n, 3, h, w) shows, of all that were learned."""
        found = nearest_concepts(self.encoders.identity(parts), self.references)
        return [self.things[index].name for index in found.tolist()]

    def ceilings(self) -> dict[int, float]:
        """Count -> share of photos recognised that were made smaller to fit into the layouts' boxes."""
        photos = {t.name: photos_tensor(t.photos(CEILING, seed=3), self.base.resolution) for t in self.things}
        shares = {}
        for count, layouts in self.layouts.items():
            right = [
                seen == name
                for index, layout in enumerate(layouts)
                for name, part in zip(layout.names, layout.fitted(photos, index % CEILING), strict=True)
                for seen in self.recognised(part)
            ]
            shares[count] = statistics.mean(right)
        return shares

    def _features(self, photos: Any) -> Tensor:
        return self.encoders.identity(photos_tensor(photos, self.base.resolution))

    def library(self, method: Method) -> Library:
        """The method's library with all concepts in it; those that are there already are not learned again."""
        path = self.out / method.name
        library = Library.open_or_create(path, self.base, method)
        for thing in self.things:
            if thing.name in library.names():
                continue
            say(f"{method.name}: learning {thing.name}")
            library.commit(self._learn(method, thing, library))
        return library

    def _learn(self, method: Method, thing: WorldConcept, library: Library) -> Any:
        earlier = library.learned()
        tasks = make_tasks(self.base, method, [thing.photos(PHOTOS, seed=1)], earlier)
        return train(self.base, method, tasks, earlier)[0]

    def run(self, name: str) -> dict[str, Any]:
        """The method's record; what it holds already is not drawn again."""
        path = self.out / f"{name}.json"
        method = method_from(name, {"steps": self.asked.training_steps})
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"seen": {}, "cost": None}
        record["settings"] = method_settings(method)
        with compose_library(self.library(method), self.base) as composed, bf16_autocast(self.base):
            for count in COUNTS:
                for arm in ARMS:
                    seen = record["seen"].setdefault(f"{count} {arm}", [])
                    while len(seen) < len(self.layouts[count]):
                        seen += self._drawn(composed, count, arm, len(seen))
                        write_json(path, record)
                        say(f"{name}: {count} concepts, {arm}: {len(seen)} of {len(self.layouts[count])} layouts")
            if "alone" not in record:
                record["alone"] = self._seen_alone(composed)
                write_json(path, record)
            if record["cost"] is None:
                say(f"{name}: seconds an image")
                record["cost"] = self._cost(composed)
                write_json(path, record)
        return record

    def _drawn(self, composed: Composed, count: int, arm: str, start: int) -> list[list[str]]:
        """For the next few layouts what is recognised in each box; the first images are kept for the sheet."""
        part = self.layouts[count][start : start + BATCH]
        images = self._draw(composed, part, arm)
        for index, image in enumerate(images, start=start):
            if index < SHOWN:
                to = image_of(self.out, composed.method.name, count, arm, index)
                to.parent.mkdir(exist_ok=True)
                to_image(image).save(to)
        return [self.recognised(crops(image, layout)) for image, layout in zip(images, part, strict=True)]

    def _draw(self, composed: Composed, layouts: Sequence[Layout], arm: str) -> Tensor:
        called = {one.name: composed.method.prompt_name(one.name, one.class_noun) for one in composed.learned}
        settings = SamplingSettings(GUIDANCE, self.asked.sampling_steps, batch_size=BATCH)
        seeds = [layout.seed for layout in layouts]
        if arm == "plain":
            return composed.sample([layout.prompt(called) for layout in layouts], seeds, settings)
        prompts, regions = [layout.around for layout in layouts], [layout.regions(called) for layout in layouts]
        if arm == "apart":
            return sample_per_region(composed.sample, prompts, seeds, settings, regions=regions)
        return composed.sample(prompts, seeds, settings, regions=regions)

    def _cost(self, composed: Composed) -> dict[str, Any]:
        """Seconds an image with no region, and with two, three and four, in turn; the first round is not counted.

        An image without regions shows one concept. In each round the cost of a region is what k regions take beyond
        it, over k, as a share of the plain image.
        """
        works: dict[str, Callable[[], object]] = {"0": lambda: self._alone(composed, self.layouts[COUNTS[0]][:BATCH])}
        for count in COUNTS:
            for arm in ("regions", "apart"):
                works[f"{count} {arm}"] = partial(self._draw, composed, self.layouts[count][:BATCH], arm)
        rounds = [{key: self._seconds(work) for key, work in works.items()} for _ in range(1 + self.asked.rounds)]
        counted, regions = rounds[1:], [key for key in works if key != "0"]
        times = {key: statistics.median(one[key] / one["0"] for one in counted) for key in regions}
        return {
            "seconds_a_picture": {key: statistics.median(one[key] for one in counted) for key in works},
            "times_a_plain_picture": times,
            "a_region": {key: (ratio - 1) / int(key.split()[0]) for key, ratio in times.items()},
            "rounds": counted,
        }

    def _seen_alone(self, composed: Composed) -> float:
        """The share recognised of plain images of one concept each: what learning allows, whatever the places."""
        layouts = [layout for layouts in self.layouts.values() for layout in layouts[:BATCH]]
        seen = self.recognised(self._alone(composed, layouts))
        return statistics.mean(name == layout.names[0] for name, layout in zip(seen, layouts, strict=True))

    def _alone(self, composed: Composed, layouts: Sequence[Layout]) -> Tensor:
        """A plain image of each layout's first concept."""
        prompts = [
            f"a photo of {composed.method.prompt_name(layout.names[0], layout.nouns[0])} {layout.scene}"
            for layout in layouts
        ]
        settings = SamplingSettings(GUIDANCE, self.asked.sampling_steps, batch_size=BATCH)
        return composed.sample(prompts, [layout.seed for layout in layouts], settings)

    def _seconds(self, work: Callable[[], object]) -> float:
        began = now(self.base)
        work()
        return (now(self.base) - began) / min(BATCH, self.asked.layouts)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder; a stopped run goes on in it")
    parser.add_argument("--methods", nargs="+", default=COMPARED, choices=list(METHODS))
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS, help="name:noun:seed, at least four")
    parser.add_argument("--layouts", type=int, default=64, help="of each number of concepts")
    parser.add_argument("--training-steps", type=int, default=100)
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5, help="of the timing")
    parser.add_argument("--seed", type=int, default=0, help="of the layouts")
    given = vars(parser.parse_args())
    out, methods = given.pop("out"), given.pop("methods")
    out.mkdir(parents=True, exist_ok=True)
    measurement = Measurement(out, Asked(**given))
    facts, results = machine(measurement.base), {}
    for name in methods:
        record = measurement.run(name)
        results[name] = {
            "shares": shares(record, measurement.layouts),
            "alone": record["alone"],
            "cost": record["cost"],
        }
        say(report(name, results[name]))
    summary = {"asked": asdict(measurement.asked), "ceilings": measurement.ceilings(), "methods": results}
    goals = {"in_its_box": GOALS, "a_region": COST_GOAL}
    write_json(out / "results.json", summary | {"goals": goals, "machine": facts})
    sheet(out, methods, measurement.layouts).save(out / "sheet.png")
    say(f"ceilings {summary['ceilings']}; written to {out / 'results.json'} and {out / 'sheet.png'}")


if __name__ == "__main__":
    main()
