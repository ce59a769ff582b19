"""One run of the benchmark as data: job, score matrix, features, costs, images, failure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.evaluation.matrix import ScoreMatrix
from mnemon.methods import method_of_record, method_settings
from mnemon.settings import RENAMED

SCORES = ("identity_alignment", "image_alignment", "text_alignment", "clip_score")

Row = Mapping[str, Any]
"""`EvalRow.scores` of `mnemon.evaluation.evaluate`."""


def comparable_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings to be compared: under the names of now, and with those that the record does not mention."""
    try:
        return method_settings(method_of_record(method, settings))
    except MnemonError:  # the method or a setting is no more
        return {RENAMED.get(key, key): value for key, value in settings.items()}


@dataclass(frozen=True)
class Failure:
    """Why a run has no result: `error` says what happened, `where` in which part of the run."""

    error: str
    where: str


@dataclass(frozen=True)
class RunRecord:
    """One run: one method on one order of the concepts with one seed.

    Attributes:
        base: its name, "" if the job does not say.
        protocol: "paper", also where the job is older than protocols, or "level".
        departures: the settings that are not those of the protocol, as far as the job says.
        names: of the concepts, in the order in which they were learned; concept j = 1..N is `names[j - 1]`.
        hold_out: whether photos were to be kept for the scores, where a concept has enough.
        not_held_out: names of the concepts whose references were also trained on.
        score: how images for scores were sampled, with "points": after which concepts all of them were scored.
        rows: t -> row; the concept just learned is in every row, all of them at the points; 0, the bare base, has
            control prompts alone.
        alone: the scores of each concept with no other in the model, by name; empty where that was not measured.
        features: "pictures/<t>/<name>/image|identity", "references/<name>/image|identity" and
            "general/<t>/image", each (n, d).
        known_figures, known_confusion: as worked out when the features were there; empty if they never were.
        costs: {"seconds", "bytes"}, of each concept to train and to store, by name; {"fusion_seconds",
            "fusion_peak_bytes"} of combining all concepts at the end, 0 where a method does not fuse; {"parameters"}
            trained for one concept, {"draw_seconds_per_picture"} with all concepts in the model, {"peak_memory_bytes"}.
            Empty if the run has none yet.
        strips: (t, name) -> a PNG with the first images of a scored cell side by side.
    """

    folder: Path
    sequence: str
    base: str
    protocol: str
    method: str
    settings: Mapping[str, Any]
    departures: Mapping[str, Any]
    order: int
    seed: int
    names: tuple[str, ...]
    hold_out: bool
    not_held_out: tuple[str, ...]
    score: Mapping[str, Any]
    versions: Mapping[str, Any]
    machine: Mapping[str, Any]
    rows: Mapping[int, Row]
    alone: Mapping[str, Mapping[str, Any]]
    features: Mapping[str, Tensor] = field(repr=False)
    known_figures: Mapping[str, float] = field(repr=False)
    known_confusion: Sequence[Sequence[float]] = field(repr=False)
    costs: Mapping[str, Any]
    strips: Mapping[tuple[int, str], Path] = field(repr=False)
    failure: Failure | None

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
        return self.failure is None and bool(self.costs) and len(self.names) in self.rows

    @property
    def last_row(self) -> Row:
        """Empty if the run did not come so far."""
        return self.rows.get(len(self.names), {})

    def cell(self, t: int, name: str) -> Mapping[str, Any]:
        """The scores of a concept after concept t; empty where it was not scored."""
        cells: Mapping[str, Mapping[str, Any]] = self.rows.get(t, {}).get("concepts", {})
        return cells.get(name, {})

    def matrix(self, score: str) -> ScoreMatrix:
        """R[t, j] of one of `SCORES`, (N, N): row t after concept t; nan where it was not scored."""
        count = len(self.names)
        values = np.full((count, count), np.nan)
        for t in range(1, count + 1):
            for j, name in enumerate(self.names[:t]):
                value = self.cell(t, name).get(score)
                values[t - 1, j] = math.nan if value is None else value
        return ScoreMatrix(self.names, tuple(range(1, count + 1)), values, np.tri(count, dtype=np.bool_))

    def images(self, t: int, name: str, kind: str) -> Tensor | None:
        """Unit features (n, d) of the images of a concept sampled after concept t; `kind` is "image" or "identity"."""
        return self.features.get(f"pictures/{t}/{name}/{kind}")

    def references(self, name: str, kind: str) -> Tensor | None:
        """Unit features (m, d) of a concept's reference images."""
        return self.features.get(f"references/{name}/{kind}")

    def control(self, t: int) -> Tensor | None:
        """Unit image features (n, d) of the control prompts' images after concept t; 0 is the bare base."""
        return self.features.get(f"general/{t}/image")
