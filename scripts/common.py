"""What the scripts share: the clock, results and their table, the facts of the machine, stand-ins for concepts."""

import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnemon.benchmark.measuring import machine_facts, package_versions
from mnemon.data import photos_tensor
from mnemon.evaluation import WorldEncoders, reference_features
from mnemon.methods import Method, Start, TrainedConcept, importance
from mnemon.methods.neuron_selection import SelectingLearner
from mnemon.models import Base
from mnemon.world import WorldConcept

REFERENCES = 16
"""Images of a concept of the world that it is scored against."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `rounds` repeat the whole comparison; `steps` are training steps a round, after
    `warm_up` others that are not counted."""

    rounds: int = 5
    steps: int = 24
    warm_up: int = 4
    concepts: int = 50
    images: int = 16
    sampling_steps: int = 20
    learning_seeds: tuple[int, ...] = (901, 902, 903)
    learning_steps: int | None = None  # the method's own
    checkpoint_every: int = 20

    def to_json(self) -> dict[str, Any]:
        """With the keys of records that exist."""
        return {"pictures" if key == "images" else key: value for key, value in asdict(self).items()}


QUICK = Sizes(1, 4, 1, 3, 2, 2, (901,), 4, 2)
"""Enough to see that everything runs; the numbers mean nothing."""


@dataclass(frozen=True)
class Bench:
    """What is measured on: two copies of one base, so that one can be trained while the other stays bare."""

    base: Base
    bare: Base
    methods: dict[str, Method]
    sizes: Sizes
    seed: int


@dataclass(frozen=True)
class Result:
    """One number. `low` and `high` are what `spread` says; `goal` is the most it may be, `least` the least."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    spread: str
    goal: float | None = None
    details: Any = None
    least: float | None = None

    @property
    def bounds(self) -> str:
        """The goal in words, if there is one."""
        most = "" if self.goal is None else f"≤ {self.goal:.2f}"
        return most if self.least is None else f"≥ {self.least:.2f} {most}".strip()

    @property
    def verdict(self) -> str:
        if not self.bounds:
            return ""
        low, high = (-math.inf if self.least is None else self.least), (math.inf if self.goal is None else self.goal)
        return "reached" if low <= self.value <= high else "missed"


def median(
    name: str,
    unit: str,
    values: Sequence[float],
    goal: float | None = None,
    details: Any = None,
    least: float | None = None,
) -> Result:
    """The median of `values` with their quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * list(values)
    return Result(name, unit, middle, low, high, f"median, quartiles of {len(values)}", goal, details, least)


def exact(name: str, unit: str, value: float, details: Any = None) -> Result:
    return Result(name, unit, value, value, value, "exact", None, details)


def now(base: Base) -> float:
    """Seconds, once everything asked of the base's device has been done."""
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
    return time.perf_counter()


def seconds(base: Base, work: Callable[[], object]) -> float:
    began = now(base)
    work()
    return now(base) - began


def references_of(
    base: Base, encoders: WorldEncoders, concepts: Sequence[WorldConcept]
) -> dict[str, dict[str, Tensor]]:
    """Features of images of each concept that nothing was trained on."""
    photos = {one.name: one.photos(REFERENCES, seed=2) for one in concepts}
    tensors = {name: photos_tensor(concept, base.resolution) for name, concept in photos.items()}
    return {name: reference_features(encoders, images) for name, images in tensors.items()}


def stand_ins(base: Base, method: Method, count: int, seed: int) -> list[TrainedConcept]:
    """Concepts that cost what learned ones cost, with random numbers in them: `c0`, `c1`, ..."""
    generator = torch.Generator(base.device).manual_seed(seed)
    learned = []
    for index in range(count):
        learner = method.begin(Start(f"c{index}", "mug", base, [], generator))
        if isinstance(learner, SelectingLearner):  # in training; here at random
            shapes = {target: layer.weight.shape for target, layer in learner.target_modules.items()}
            scores = {
                target: torch.rand(shape, generator=generator, device=generator.device)
                for target, shape in shapes.items()
            }
            learner.train_under(importance.top(scores, learner.selection.q, learner.selection.rank_scope))
        with torch.no_grad():
            for parameter in learner.parameters():
                noise = torch.randn(parameter.shape, generator=generator, device=generator.device)
                parameter.add_(1e-3 * noise.to(parameter.device))
        learned.append(learner.export())
    return learned


def print_results(title: str, results: Sequence[Result]) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("what", "value", "low", "high", "unit", "spread", "goal", "verdict"):
        table.add_column(column, justify="right" if column in ("value", "low", "high", "goal") else "left")
    for one in results:
        numbers = [_short(number) for number in (one.value, one.low, one.high)]
        table.add_row(one.name, *numbers, one.unit, one.spread, one.bounds, one.verdict)
    Console(width=140).print(table)


def to_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [asdict(one) | {"verdict": one.verdict} for one in results]


def machine(base: Base) -> dict[str, Any]:
    """Where and on what the numbers were measured."""
    return {
        **machine_facts(base.device),
        "load_before": os.getloadavg()[0],
        "versions": package_versions(),
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
