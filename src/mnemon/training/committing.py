"""From concepts that are there, trained or imported, to a commit with its row of scores, within a forgetting budget."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mnemon.adapters import Delta
from mnemon.data import Concept, photo_squares
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings, reference_features
from mnemon.evaluation.encoders import load
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Library, Proposal, commit_all, fused_changes
from mnemon.models import Base
from mnemon.training.forgetting_budget import ForgettingBudget
from mnemon.training.scoring import Policy, Scorer

AT_ONCE = 64
"""References whose pixels are in memory together."""


@dataclass(kw_only=True)
class ScoredCommit:
    """Commits concepts into a library whose lock is held, and scores the library.

    Attributes:
        encoders: for scores; None for no scores at all.
        policy: which earlier concepts are sampled again.
        max_forgetting: by how much the identity alignment of an earlier concept may fall, if that is bounded.
        stage_refused: whether concepts over the budget are kept aside, as those that took a training are.
        seconds: what the phases took: "checking", "committing" and "scoring".

    Raises:
        MnemonError: forgetting is bounded, and an earlier concept that could be scored was not, or will not be.
    """

    library: Library
    base: Base
    encoders: Encoders | None
    score: EvalSettings | None = None
    policy: Policy = "all"
    max_forgetting: float | None = None
    stage_refused: bool = False
    seconds: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.max_forgetting is not None and self.policy == "new":
            raise MnemonError(
                "Where only the new concept is sampled, nothing says what it costs the others: leave out "
                "max_forgetting, or sample all or those of the forecast (`--score`)."
            )
        self._budget: ForgettingBudget | None = None
        self._row: dict[str, Any] | None = None
        self._fused: Mapping[str, Delta] | None = None
        self._new: Sequence[Proposal] = ()
        self._scorer: Scorer | None = None
        score = self.score or EvalSettings.of_base(self.base)
        if self.encoders:
            load(self.encoders)
            self._scorer = Scorer(self.library, self.base, self.encoders, score, self.policy)
        if self.max_forgetting is not None and self.encoders and self.library.names():
            self._budget = ForgettingBudget(
                self.library, self.base, self.encoders, score, self.max_forgetting, self.stage_refused
            )

    def reference_features(self, concept: Concept | None) -> dict[str, Tensor] | None:
        """What is kept of a concept's reference images, so that it can be scored without them."""
        if self.encoders is None or concept is None:
            return None
        # A photo that is there twice would only be compared with itself.
        squares = photo_squares(concept.distinct(), self.base.resolution)
        parts = []
        while part := list(islice(squares, AT_ONCE)):
            parts.append(reference_features(self.encoders, torch.stack(part)))
        return {name: torch.cat([one[name] for one in parts]) for name in parts[0]}

    def commit(self, proposals: Sequence[Proposal], on_images: OnImages | None = None) -> None:
        """Raises:
        BudgetExceeded: an earlier concept falls too far; nothing is committed.
        """
        with self._timed("checking"):
            if self._budget and self._scorer:
                self._row, self._fused = self._budget.check(proposals, self._scorer, on_images)
        self._new = proposals
        with self._timed("committing"):
            commit_all(self.library, proposals)

    def finish(self, on_images: OnImages | None = None) -> dict[str, Any] | None:
        """After the commit: fuse the concepts with the earlier ones, if the method does, and keep the row of the new
        revision, as the check gave it or scored now; None without scores."""
        with self._timed("committing"):
            if self._fused is not None:
                self.library.write_fused(self._fused)
            elif self.library.method.fuses:
                self._fused = fused_changes(self.library, self.base)
        with self._timed("scoring"):
            if self._row is None and self._scorer:
                self._row = self._scorer.row(self._new, self._fused, on_images)
            if self._row is not None:
                self.library.write_row(self.library.revision, self._row)
        return self._row

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began
