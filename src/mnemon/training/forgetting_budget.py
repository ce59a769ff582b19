"""A bound on forgetting: concepts that cost earlier ones too much are staged instead of committed."""

import warnings
from collections.abc import Sequence
from typing import Any

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Candidate, Library, Proposal, composed_changes, put_aside
from mnemon.models import Base
from mnemon.training.scoring import Scorer
from mnemon.verdict import measured_as


class BudgetExceeded(MnemonError):
    """New concepts lower the identity alignment of earlier ones by more than was allowed.

    Args:
        staged: whether they were kept aside.

    Attributes:
        row: the row of the score matrix with the new concepts in the model.
        forgets: the earlier concepts that fell too far, with their best identity alignment so far, and that in `row`.
    """

    def __init__(self, candidate: Candidate, staged: bool) -> None:
        new = " ".join(f"<{name}>" for name in candidate.names)
        self.row, self.forgets = candidate.row, candidate.forgets
        falls = ", ".join(f"<{name}> falls from {best:.3f} to {now:.3f}" for name, (best, now) in self.forgets.items())
        remedy = (
            "It is kept aside: take it in all the same with `mnemon commit --anyway`, or drop it with `mnemon discard`."
            if staged
            else "The library is as it was: take it in all the same with a higher --max-forgetting, or none."
        )
        super().__init__(f"{new} was not committed: with it the identity alignment of {falls}. {remedy}")


class ForgettingBudget:
    """Scores concepts before they are committed, and refuses those that cost earlier ones too much.

    Args:
        max_forgetting: by how much an earlier concept's identity alignment may fall below its best so far, among rows
            with the same settings and encoders.
        stage_refused: keep what is refused aside in the library's folder.

    Raises:
        MnemonError: an earlier concept that could be scored was not, so that there is nothing to compare with.
    """

    def __init__(
        self,
        library: Library,
        base: Base,
        encoders: Encoders,
        score: EvalSettings,
        max_forgetting: float,
        stage_refused: bool = True,
    ) -> None:
        self._library, self._base, self._encoders, self._max = library, base, encoders, max_forgetting
        self._stage_refused, self._score = stage_refused, score
        best = {name: self._best_of(name) for name in _scorable(library)}
        self._best = {name: value for name, value in best.items() if value is not None}
        if missing := [name for name in best if name not in self._best]:
            raise MnemonError(
                f"Forgetting of '{missing[0]}' cannot be measured, since it has no score with these settings yet: "
                "run `mnemon evaluate --again` first."
            )

    def _best_of(self, name: str) -> float | None:
        settings = self._score.to_row_json(self._encoders.prompts)
        rows, now = self._library.rows(), measured_as({"encoders": self._encoders.name, "settings": settings})
        learned = self._library.concepts()[name].number
        same = [
            row["concepts"].get(name, {}).get("identity_alignment")
            for state, row in rows.items()
            if state >= learned and measured_as(row) == now
        ]
        return max((value for value in same if value is not None), default=None)

    def check(
        self, proposals: Sequence[Proposal], scorer: Scorer, on_images: OnImages | None
    ) -> tuple[dict[str, Any], dict[str, Delta] | None]:
        """The row of the score matrix with the new concepts in the model, and the fused changes if the method fuses.

        Raises:
            BudgetExceeded: an earlier concept falls too far.
        """
        method, learned = self._library.method, [*self._library.learned(), *(one.learned for one in proposals)]
        fused = composed_changes(method, learned, self._base) if method.fuses else None
        row = scorer.row(proposals, fused, on_images)
        now = {name: row["concepts"][name]["identity_alignment"] for name in self._best}
        forgets = {name: (best, now[name]) for name, best in self._best.items() if best - now[name] > self._max}
        if forgets:
            candidate = Candidate(tuple(proposals), row, forgets)
            if self._stage_refused:
                put_aside(self._library, candidate)
            raise BudgetExceeded(candidate, self._stage_refused)
        return row, fused


def _scorable(library: Library) -> list[str]:
    """The concepts that have references; a warning names the others."""
    names = list(library.all_references())
    if blind := [name for name in library.names() if name not in names]:
        warnings.warn(
            f"No references are kept of {', '.join(blind)}: max_forgetting cannot protect what has none.", stacklevel=3
        )
    return names
