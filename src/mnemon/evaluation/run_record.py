"""What one run of the benchmark left in its folder, read back: job, score matrix, features, costs, images, failure.

    <out>/<method>/order-<o>-seed-<s>/
      job.json  rows.json  features.safetensors  figures.json  costs.json  strips/<t>-<name>.png
  or, if it failed,  failed.json

Everything but job.json may be missing: a run may have failed, been killed, or lie in a folder of results from which the
features were left out. What was worked out of these is in figures.json, since the first report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.evaluation.json_file import JsonFile
from mnemon.evaluation.matrix import ScoreMatrix

SCORES = ("identity_alignment", "image_alignment", "text_alignment", "clip_score")

Row = Mapping[str, Any]
"""`EvalRow.scores` of `mnemon.evaluation.evaluate`."""


@dataclass(frozen=True)
class LearnedConcept:
    """One concept of a run.

    Attributes:
        class_noun: None for a style.
        kind: "thing" or "style".
        held_out: whether its references were kept out of training.
    """

    name: str
    class_noun: str | None
    kind: str
    held_out: bool


@dataclass(frozen=True)
class Costs:
    """What a run took; None where it was not measured.

    Attributes:
        seconds: of training, by concept.
        fusion_seconds, fusion_peak_bytes: of combining all concepts at the end; 0 where a method does not fuse.
        parameters: trained for one concept.
        bytes: stored, by concept.
        draw_seconds_per_picture: with all concepts in the model.
        peak_memory_bytes: of the process.
    """

    seconds: Mapping[str, float]
    fusion_seconds: float | None
    fusion_peak_bytes: float | None
    parameters: float | None
    bytes: Mapping[str, float]
    draw_seconds_per_picture: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True)
class Failure:
    """Why a run has no result: `error` says what happened, `where` in which part of the run."""

    error: str
    where: str


@dataclass(frozen=True)
class RunRecord:
    """One run: one method on one order of the concepts with one seed.

    Attributes:
        base: what was taught, "" if the job does not say.
        concepts: in the order in which they were learned; concept j = 1..N is `concepts[j - 1]`.
        score: how images for scores were drawn, with "points": after which concepts all of them were scored.
        rows: t -> row; the concept just learned is in every row, all of them at the points; 0, the bare base, has
            general prompts alone.
        features: "pictures/<t>/<name>/image|identity", "references/<name>/image|identity" and
            "general/<t>/image", each (n, d).
        known_figures, known_confusion: as worked out when the features were there; empty if they never were.
        strips: (t, name) -> a PNG with the first images of a scored cell side by side.
    """

    folder: Path
    sequence: str
    base: str
    method: str
    settings: Mapping[str, Any]
    order: int
    seed: int
    concepts: tuple[LearnedConcept, ...]
    score: Mapping[str, Any]
    versions: Mapping[str, Any]
    machine: Mapping[str, Any]
    rows: Mapping[int, Row] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    known_figures: Mapping[str, float] = field(default_factory=dict, repr=False)
    known_confusion: Sequence[Sequence[float]] = field(default=(), repr=False)
    costs: Costs | None = None
    strips: Mapping[tuple[int, str], Path] = field(default_factory=dict, repr=False)
    failure: Failure | None = None

    @classmethod
    def read(cls, folder: str | Path) -> "RunRecord":
        """The record in `folder`.

        Raises:
            MnemonError: there is no job, or a file cannot be read or lacks what it must hold; says which.
        """
        folder = Path(folder)
        job = _job(folder / "job.json")
        known = JsonFile.read(folder / "figures.json") or JsonFile(folder, {})
        return cls(
            folder,
            job.text("sequence"),
            str(job.value.get("base", "")),
            job.text("method"),
            job.mapping("settings"),
            job.whole("order"),
            job.whole("seed"),
            tuple(_concept(one, job) for one in job.objects("concepts")),
            job.mapping("score"),
            job.value.get("versions") or {},
            job.value.get("machine") or {},
            _rows(folder / "rows.json"),
            _features(folder / "features.safetensors"),
            known.numbers("figures"),
            known.value.get("confusion") or (),
            _costs(folder / "costs.json"),
            _strips(folder / "strips"),
            _failure(folder / "failed.json"),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(concept.name for concept in self.concepts)

    @property
    def label(self) -> str:
        return f"order {self.order}, seed {self.seed}"

    @property
    def points(self) -> tuple[int, ...]:
        """After how many concepts all of them were scored, ascending."""
        return tuple(sorted(self.score.get("points") or ()))

    @property
    def images_of_a_cell(self) -> int | None:
        """How many images one score is of; None if the job does not say."""
        return self.score.get("pictures")

    @property
    def finished(self) -> bool:
        return self.failure is None and self.costs is not None and len(self.concepts) in self.rows

    def matrix(self, score: str) -> ScoreMatrix:
        """R[t, j] of one of `SCORES`, (N, N): row t after concept t; nan where it was not scored."""
        count = len(self.concepts)
        values = np.full((count, count), np.nan)
        for t in range(1, count + 1):
            cells = self.rows.get(t, {}).get("concepts", {})
            for j, name in enumerate(self.names[:t]):
                value = cells.get(name, {}).get(score)
                values[t - 1, j] = math.nan if value is None else value
        return ScoreMatrix(self.names, tuple(range(1, count + 1)), values, np.tri(count, dtype=np.bool_))

    def images(self, t: int, name: str, kind: str) -> Tensor | None:
        """Unit features (n, d) of the images of a concept drawn after concept t; `kind` is "image" or "identity"."""
        return self.features.get(f"pictures/{t}/{name}/{kind}")

    def references(self, name: str, kind: str) -> Tensor | None:
        """Unit features (m, d) of a concept's reference images."""
        return self.features.get(f"references/{name}/{kind}")

    def general(self, t: int) -> Tensor | None:
        """Unit image features (n, d) of the general prompts' images after concept t; 0 is the bare base."""
        return self.features.get(f"general/{t}/image")


def _job(path: Path) -> JsonFile:
    found = JsonFile.read(path)
    if found is None:
        raise MnemonError(f"There is no {path}: this is not the folder of a benchmark run.")
    return found


def _concept(one: Mapping[str, Any], job: JsonFile) -> LearnedConcept:
    if not isinstance(one.get("name"), str):
        raise MnemonError(f"{job.path} has a concept without a name: run that job again.")
    return LearnedConcept(one["name"], one.get("noun"), one.get("kind", "thing"), one.get("held_out", True))


def _rows(path: Path) -> dict[int, Row]:
    found = JsonFile.read(path)
    rows = found.value if found else {}
    for t, row in rows.items():
        if not t.isdecimal() or not isinstance(row, dict) or not isinstance(row.get("concepts", {}), dict):
            raise MnemonError(f"{path} has no row of scores at '{t}': run that job again.")
    return {int(t): row for t, row in rows.items()}


def _features(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise MnemonError(f"{path} cannot be read ({error}): run that job again.") from None


def _costs(path: Path) -> Costs | None:
    found = JsonFile.read(path)
    if found is None:
        return None
    return Costs(
        found.numbers("seconds"),
        found.number("fusion_seconds"),
        found.number("fusion_peak_bytes"),
        found.number("parameters"),
        found.numbers("bytes"),
        found.number("draw_seconds_per_picture"),
        found.number("peak_memory_bytes"),
    )


def _strips(folder: Path) -> dict[tuple[int, str], Path]:
    found = {}
    for path in sorted(folder.glob("*.png")):
        t, _, name = path.stem.partition("-")
        if t.isdecimal() and name:
            found[int(t), name] = path
    return found


def _failure(path: Path) -> Failure | None:
    found = JsonFile.read(path)
    if found is None:
        return None
    return Failure(str(found.value.get("error", "unknown")), str(found.value.get("where", "unknown")))
