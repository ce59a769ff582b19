"""Jobs: one method on one order with one seed each, and the folder where a job keeps all it has done so far.

<out>/<method>/order-<o>-seed-<s>/
  job.json              what was asked, versions, machine
  rows.json             {"<t>": row}; 0 is the bare base
  features.safetensors  "pictures/<t>/<name>/image|identity", "references/<name>/image|identity", "general/<t>/image"
  figures.json          what every report works out of the features, for when these are left out
  costs.json            seconds, bytes, parameters, memory
  strips/<t>-<name>.png the first images of a scored cell
  library/              the concepts learned so far, as any library
  training/             the snapshot of the concept being learned
  failed.json           {"error", "where", "traceback"}, if the job failed
  progress.json         how far the job is, while it runs in another process
"""

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mnemon.benchmark.sequences import ConceptSequence, shipped_sequences
from mnemon.benchmark.sources import open_sequence
from mnemon.errors import MnemonError
from mnemon.evaluation import EvalSettings
from mnemon.files import write_json, write_png, write_safetensors
from mnemon.methods import method_from, method_settings
from mnemon.methods.base import Method

EVAL_SETTINGS, EVAL_AT = EvalSettings(batch_size=32), (1, 10, 25, 50)


@dataclass(frozen=True)
class Job:
    """All that a worker has to know; it travels between processes and machines.

    Attributes:
        out: the results folder; on a cluster, one that all machines see.
        sequence: a name or path, for `open_sequence`.
        settings: of the method; those not given keep their defaults.
        base: a base's name.
        eval_settings: how images for scores are sampled; the same for every job, so that scores compare.
        eval_at: numbers of concepts after which all of them are scored again; after the last one they always are.
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

    @property
    def folder(self) -> Path:
        return self.out / self.method / f"order-{self.order}-seed-{self.seed}"

    def full_evaluations(self, count: int) -> list[int]:
        """After how many of `count` concepts all of them are scored."""
        return sorted({number for number in self.eval_at if number < count} | {count})

    @property
    def title(self) -> str:
        return f"{self.method}, order {self.order}, seed {self.seed}"

    def made_method(self) -> Method:
        return method_from(self.method, self.settings)

    def shared(self, sequence: ConceptSequence) -> dict[str, Any]:
        """What all jobs of a results folder have in common, so that their numbers compare."""
        score = {**self.eval_settings.to_json(), "points": self.full_evaluations(len(sequence.concepts))}
        return {"sequence": sequence.name, "base": self.base, "score": score}

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


@dataclass(frozen=True)
class Progress:
    """How far a job is: concepts done, where learning and scoring are half of each, concepts in all, and what it does
    now."""

    done: float
    total: int
    doing: str


OnProgress = Callable[[Progress], None]


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
) -> list[Job]:
    """The jobs for every method, order and seed; `settings` are by method.

    Raises:
        MnemonError: no or an unknown method, an unknown setting or sequence, more orders than there are, or a job in
            `out` was begun in another way.
    """
    if min(eval_at, default=1) < 1:
        raise MnemonError("All concepts are scored after 1 or more of them: leave out what is below.")
    if not methods:
        raise MnemonError("There is nothing to compare: name at least one method.")
    given = settings or {}
    stray = [name for name in given if name not in methods]
    if stray:
        raise MnemonError(f"There are settings for '{stray[0]}', which is not among the methods: {', '.join(methods)}.")
    opened = open_sequence(sequence)
    opened.ordered(orders - 1)
    sequence, base = _settled(sequence, shipped_sequences()), _settled(base, ["world"])
    jobs = [
        Job(out, sequence, method, order, seed, dict(given.get(method, {})), base, eval_settings, eval_at)
        for seed in range(seeds)
        for order in range(orders)
        for method in dict.fromkeys(methods)
    ]
    for job in jobs:
        job.made_method()
        JobFolder(job.folder).check_same(job, opened)
    for path in sorted(out.glob("*/order-*-seed-*")):  # those of other methods too
        JobFolder(path).check_comparable(jobs[0].shared(opened))
    return jobs


def _settled(what: str, names: Sequence[str]) -> str:
    """A path that is true wherever a worker stands; a name as it is."""
    path = Path(what).expanduser()
    return str(path.resolve()) if what not in names and path.exists() else what


class JobFolder:
    """What a job has written so far, read on opening; every writing leaves the old or the new file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = _read(path / "rows.json")
        self.costs: dict[str, Any] = _read(path / "costs.json")

    def check_same(self, job: Job, sequence: ConceptSequence) -> None:
        """Raises:
        MnemonError: the job was begun with other settings.
        """
        if (self.path / "job.json").exists():
            self._check(json.loads(json.dumps(job.to_json(sequence))))

    def check_comparable(self, shared: Mapping[str, Any]) -> None:
        """Raises:
        MnemonError: the job was begun on another base or sequence, or scored in another way, than these have in common.
        """
        self._check(shared)

    def _check(self, asked: Mapping[str, Any]) -> None:
        begun = _read(self.path / "job.json")
        for key, value in asked.items() if begun else ():
            if begun.get(key) != value:
                raise MnemonError(
                    f"{self.path} was begun with another value of '{key}'{_difference(begun.get(key), value)}: "
                    "ask for the same, or choose another results folder."
                )

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Note what is done and where; an earlier failure is taken back."""
        write_json(self.path / "job.json", facts)
        (self.path / "failed.json").unlink(missing_ok=True)

    def finished(self, count: int) -> bool:
        """Whether all of `count` concepts are learned and scored."""
        return str(count) in self.rows and bool(self.costs) and not (self.path / "failed.json").exists()

    def features(self) -> dict[str, Tensor]:
        path = self.path / "features.safetensors"
        return load_file(path) if path.exists() else {}

    def write_row(
        self, count: int, row: dict[str, Any], features: Mapping[str, Tensor], strips: Mapping[str, Image.Image]
    ) -> None:
        """Keep what was measured after `count` concepts; they are scored once the row is there, so that comes last."""
        for name, strip in strips.items():
            write_png(self.path / "strips" / f"{count}-{name}.png", strip)
        write_safetensors(self.path / "features.safetensors", features)
        self.write_costs()
        self.rows[str(count)] = row
        write_json(self.path / "rows.json", self.rows)

    def write_costs(self) -> None:
        write_json(self.path / "costs.json", self.costs)

    def fail(self, error: str, where: str, details: BaseException | None = None) -> None:
        lines = traceback.format_exception(details) if details else []
        write_json(self.path / "failed.json", {"error": error, "where": where, "traceback": "".join(lines)})

    def failure(self) -> str | None:
        failed = _read(self.path / "failed.json")
        return f"{failed['where']}: {failed['error']}" if failed else None

    def write_progress(self, progress: Progress) -> None:
        write_json(self.path / "progress.json", asdict(progress))

    def progress(self) -> Progress | None:
        found = _read(self.path / "progress.json")
        return Progress(**found) if found else None

    def end(self) -> None:
        (self.path / "progress.json").unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is none yet."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return {}
    except ValueError:
        raise MnemonError(f"{path} is damaged: delete its folder, and the job is done again.") from None


def _difference(begun: Any, asked: Any) -> str:
    if isinstance(begun, dict) and isinstance(asked, dict):
        other = [f"{key} {begun.get(key)}, not {asked[key]}" for key in asked if begun.get(key) != asked[key]]
        return f" ({', '.join(other)})"
    return "" if isinstance(begun, list) else f" ({begun}, not {asked})"
