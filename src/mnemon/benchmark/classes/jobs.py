"""Jobs of a comparison of classifiers: one method on one order of the classes with one seed each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnemon.benchmark.classes.protocols import classifier_by, protocol_named
from mnemon.benchmark.classes.sequences import SHIPPED, ClassSequence, open_classes
from mnemon.classification.methods import ClassifierMethod, classifier_settings
from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import RunFolder

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class ClassJob:
    """All that a worker has to know.

    Attributes:
        out: the results folder.
        sequence, tasks: for `open_classes`.
        settings: of the method; those not given are the protocol's.
        backbone: its name; the same for every job, as the protocol is.
    """

    out: Path
    sequence: str
    tasks: int | None
    method: str
    order: int
    seed: int
    backbone: str
    protocol: str = "small"
    settings: Settings = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.out / self.method / f"order-{self.order}-seed-{self.seed}"

    @property
    def title(self) -> str:
        return f"{self.method}, order {self.order}, seed {self.seed}"

    @property
    def count(self) -> int:
        """Of tasks."""
        return self.opened().count

    @property
    def finished(self) -> bool:
        return RunFolder(self.folder).finished(self.count)

    def opened(self) -> ClassSequence:
        return open_classes(self.sequence, self.tasks)

    def made_method(self) -> ClassifierMethod:
        return classifier_by(self.protocol, self.method, self.settings)

    def departures(self) -> dict[str, Any]:
        """The settings that are not those of the protocol."""
        own = classifier_settings(classifier_by(self.protocol, self.method))
        return {key: value for key, value in classifier_settings(self.made_method()).items() if value != own[key]}

    def shared(self, sequence: ClassSequence) -> dict[str, Any]:
        """What all jobs of a results folder have in common, so that their numbers compare."""
        score = {"classes": len(sequence.classes), "points": list(range(1, sequence.count + 1))}
        return {"sequence": sequence.name, "base": self.backbone, "protocol": self.protocol, "score": score}

    def to_json(self, sequence: ClassSequence) -> dict[str, Any]:
        """What decides the outcome."""
        return {
            **self.shared(sequence),
            "method": self.method,
            "settings": classifier_settings(self.made_method()),
            "order": self.order,
            "seed": self.seed,
            "concepts": [{"name": one.name, "classes": list(one.classes)} for one in sequence.tasks(self.order)],
        }


def plan_classes(
    out: Path,
    sequence: str,
    methods: Sequence[str],
    orders: int,
    seeds: int = 1,
    *,
    tasks: int | None = None,
    settings: Mapping[str, Settings] | None = None,
    backbone: str | None = None,
    protocol: str = "small",
) -> list[ClassJob]:
    """The jobs for every method, order and seed; `settings` are by method. The backbone is the protocol's by default.

    Raises:
        MnemonError: no or an unknown method, an unknown setting, sequence or protocol, or a job in `out` was begun in
            another way.
    """
    if not methods:
        raise MnemonError("There is nothing to compare: name at least one method.")
    given = settings or {}
    if stray := [name for name in given if name not in methods]:
        raise MnemonError(f"There are settings for '{stray[0]}', which is not among the methods: {', '.join(methods)}.")
    opened, on = open_classes(sequence, tasks), backbone or protocol_named(protocol).backbone
    where = sequence if sequence in SHIPPED else str(Path(sequence).expanduser().resolve())
    jobs = [
        ClassJob(out, where, tasks, method, order, seed, on, protocol, dict(given.get(method, {})))
        for seed in range(seeds)
        for order in range(orders)
        for method in dict.fromkeys(methods)
    ]
    for job in jobs:
        RunFolder(job.folder).check(job.to_json(opened))
    for path in sorted(out.glob("*/order-*-seed-*")):  # those of other methods too
        RunFolder(path).check(jobs[0].shared(opened))
    return jobs
