"""Jobs: one method on one order with one seed each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnemon.benchmark.protocols import LEVEL, PAPER, method_by
from mnemon.benchmark.sequences import ConceptSequence, shipped_sequences
from mnemon.benchmark.sources import open_sequence
from mnemon.errors import MnemonError
from mnemon.evaluation import EvalSettings
from mnemon.evaluation.run_folder import RunFolder
from mnemon.methods import method_settings, method_with
from mnemon.methods.base import Method
from mnemon.models import Weights

EVAL_SETTINGS, EVAL_AT = EvalSettings(batch_size=32), (1, 10, 25, 50)


@dataclass(frozen=True)
class Job:
    """All that a worker has to know; it travels between processes and machines.

    Attributes:
        out: the results folder; on a cluster, one that all machines see.
        sequence: a name or path, for `open_sequence`.
        settings: of the method; those not given are the protocol's.
        base: a base's name.
        eval_settings: how images for scores are sampled; the same for every job, so that scores compare.
        eval_at: numbers of concepts after which all of them are scored again; after the last one they always are.
        protocol: one of `PROTOCOLS`; the same for every job, as the base and the scores are.
        alone: whether each concept is also scored alone, `mnemon.benchmark.alone`.
        hold_out: whether some photos of each concept are kept for the scores, where it has enough.
        weights: precision of the base; by default as its profile says on a GPU, else fp32.
    """

    out: Path
    sequence: str
    method: str
    order: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = "world"
    eval_settings: EvalSettings = EVAL_SETTINGS
    eval_at: tuple[int, ...] = EVAL_AT
    protocol: str = PAPER
    alone: bool = False
    hold_out: bool = True
    weights: Weights | None = None

    def opened(self) -> ConceptSequence:
        return open_sequence(self.sequence, self.hold_out)

    @property
    def folder(self) -> Path:
        return self.out / self.method / f"order-{self.order}-seed-{self.seed}"

    def full_evaluations(self, count: int) -> list[int]:
        """After how many of `count` concepts all of them are scored."""
        return sorted({number for number in self.eval_at if number < count} | {count})

    @property
    def count(self) -> int:
        """Of concepts."""
        return len(self.opened().concepts)

    @property
    def finished(self) -> bool:
        return RunFolder(self.folder).finished(self.count, self.alone)

    @property
    def title(self) -> str:
        return f"{self.method}, order {self.order}, seed {self.seed}"

    def made_method(self) -> Method:
        return method_with(method_by(self.protocol, self.method), self.settings)

    def departures(self) -> dict[str, Any]:
        """The settings that are not those of the protocol."""
        own = method_settings(method_by(self.protocol, self.method))
        return {key: value for key, value in method_settings(self.made_method()).items() if value != own[key]}

    def shared(self, sequence: ConceptSequence) -> dict[str, Any]:
        """What all jobs of a results folder have in common, so that their numbers compare."""
        score = {**self.eval_settings.to_json(), "points": self.full_evaluations(len(sequence.concepts))}
        shared = {"sequence": sequence.name, "base": self.base, "protocol": self.protocol, "score": score}
        shared |= {} if self.weights is None else {"weights": self.weights}
        return shared if self.hold_out else {**shared, "hold_out": False}

    def to_json(self, sequence: ConceptSequence) -> dict[str, Any]:
        """What decides the outcome; the sequence by its name and concepts, wherever it lies."""
        return {
            **self.shared(sequence),
            "method": self.method,
            "settings": method_settings(self.made_method()),
            "order": self.order,
            "seed": self.seed,
            "concepts": [
                {"name": one.name, "noun": one.class_noun, "kind": one.kind, "held_out": one.photos().held_out}
                for one in sequence.ordered(self.order).concepts
            ],
        }


def plan(
    out: Path,
    sequence: str,
    methods: Sequence[str],
    orders: int,
    seeds: int,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    base: str = "world",
    eval_settings: EvalSettings = EVAL_SETTINGS,
    eval_at: tuple[int, ...] = EVAL_AT,
    protocol: str = PAPER,
    alone: bool | None = None,
    hold_out: bool = True,
    weights: Weights | None = None,
) -> list[Job]:
    """The jobs for every method, order and seed; `settings` are by method, and go before those of the protocol.
    `alone` is so by default with the protocol "level".

    Raises:
        MnemonError: no or an unknown method, an unknown setting, sequence or protocol, more orders than there are, or a
            job in `out` was begun in another way.
    """
    if min(eval_at, default=1) < 1:
        raise MnemonError("All concepts are scored after 1 or more of them: leave out what is below.")
    if not methods:
        raise MnemonError("There is nothing to compare: name at least one method.")
    given = settings or {}
    stray = [name for name in given if name not in methods]
    if stray:
        raise MnemonError(f"There are settings for '{stray[0]}', which is not among the methods: {', '.join(methods)}.")
    alone = protocol == LEVEL if alone is None else alone
    opened = open_sequence(sequence, hold_out)
    opened.ordered(orders - 1)
    sequence, base = _settled(sequence, shipped_sequences()), _settled(base, ["world"])
    jobs = [
        Job(
            out,
            sequence,
            method,
            order,
            seed,
            dict(given.get(method, {})),
            base,
            eval_settings,
            eval_at,
            protocol=protocol,
            alone=alone,
            hold_out=hold_out,
            weights=weights,
        )  # fmt: skip
        for seed in range(seeds)
        for order in range(orders)
        for method in dict.fromkeys(methods)
    ]
    for job in jobs:
        job.made_method()
        RunFolder(job.folder).check(job.to_json(opened))
    for path in sorted(out.glob("*/order-*-seed-*")):  # those of other methods too
        RunFolder(path).check(jobs[0].shared(opened))
    return jobs


def _settled(what: str, names: Sequence[str]) -> str:
    """A path that is true wherever a worker stands; a name as it is."""
    path = Path(what).expanduser()
    return str(path.resolve()) if what not in names and path.exists() else what
