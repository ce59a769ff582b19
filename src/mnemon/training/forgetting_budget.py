"""Concepts that cost earlier ones too much: kept aside instead of committed, until somebody decides."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemon.adapters import Delta
from mnemon.api.evaluating import references_of
from mnemon.api.opening import composed_changes
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings, evaluate
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import (
    Candidate,
    Library,
    Proposal,
    commit_candidate,
    discard_candidate,
    has_candidate,
    put_aside,
    read_candidate,
)
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.training import discard_checkpoint

Forgets = Mapping[str, tuple[float, float]]
"""Earlier concept -> its best identity alignment so far, and that with the new concepts."""


class Refused(MnemonError):
    """New concepts lower the identity alignment of earlier ones by more than was allowed, and were kept aside.

    Attributes:
        row: what was measured with the new concepts in the model.
        forgets: the earlier concepts that fell too far.
    """

    def __init__(self, names: Sequence[str], row: Mapping[str, Any], forgets: Forgets) -> None:
        super().__init__(refusal(names, forgets))
        self.row, self.forgets = row, forgets


def refusal(names: Sequence[str], forgets: Forgets) -> str:
    """Why a candidate was kept aside, and what can be done."""
    new = " ".join(f"<{name}>" for name in names)
    falls = ", ".join(f"<{name}> falls from {best:.3f} to {now:.3f}" for name, (best, now) in forgets.items())
    return (
        f"{new} was not committed: with it the identity alignment of {falls}. It is kept aside: take it in all the "
        "same with `mnemon commit --anyway`, or drop it with `mnemon discard`."
    )


class Guard:
    """Measures concepts before they are committed, and refuses those that cost earlier ones too much.

    Args:
        most: by how much an earlier concept's identity alignment may fall below its best so far, where it was measured
            with the same settings and encoders.

    Raises:
        MnemonError: an earlier concept that could be measured was not, so that there is nothing to compare with.
    """

    def __init__(
        self, library: Library, base: Base, encoders: Encoders, score: EvalSettings | None, most: float
    ) -> None:
        self._library, self._base, self._encoders, self._most = library, base, encoders, most
        self._score = score or EvalSettings()
        self._best = {name: best for name in _watched(library) if (best := self._best_of(name)) is not None}
        missing = [name for name in _watched(library) if name not in self._best]
        if missing:
            raise MnemonError(
                f"How far '{missing[0]}' falls cannot be told, for it was not measured with these settings yet: "
                "run `mnemon evaluate --again` first."
            )

    def _best_of(self, name: str) -> float | None:
        rows, settings = self._library.rows(), self._score.to_row_json(self._encoders.prompts)
        learned = self._library.concepts()[name].number
        same = [
            row["concepts"].get(name, {}).get("identity_alignment")
            for state, row in rows.items()
            if state >= learned and (row["encoders"], row["settings"]) == (self._encoders.name, settings)
        ]
        return max((value for value in same if value is not None), default=None)

    def passed(
        self, proposals: Sequence[Proposal], on_images: OnImages | None
    ) -> tuple[dict[str, Any], dict[str, Delta] | None]:
        """The row with the new concepts, and the fused changes for methods that fuse.

        Raises:
            Refused: an earlier concept falls too far; the new ones are kept aside.
        """
        method, learned = self._library.method, [*self._library.learned(), *(one.learned for one in proposals)]
        known = references_of(self._library) | {one.learned.name: one.references for one in proposals if one.references}
        fused = composed_changes(method, learned, self._base) if method.fuses else None
        with Composed(self._base, method, learned, fused) as composed:
            row = evaluate(composed, known, self._encoders, self._score, on_images).to_json()
        now = {name: row["concepts"][name]["identity_alignment"] for name in self._best}
        forgets = {name: (best, now[name]) for name, best in self._best.items() if best - now[name] > self._most}
        if forgets:
            candidate = Candidate(tuple(proposals), row, forgets)
            put_aside(self._library, candidate)
            discard_checkpoint(self._library.path / "training")
            raise Refused(candidate.names, row, forgets)
        return row, fused


def _watched(library: Library) -> list[str]:
    """The concepts that can be measured."""
    names = [name for name in library.names() if library.references(name)]
    blind = [name for name in library.names() if name not in names]
    if blind:
        warnings.warn(f"No references are kept of {', '.join(blind)}: nobody sees what happens to it.", stacklevel=2)
    return names


def check_none_waits(library: Library) -> None:
    """Raises:
    MnemonError: a candidate waits for a decision.
    """
    if has_candidate(library):
        raise MnemonError(
            f"A candidate is kept aside in the library {library.path}: take it in with `mnemon commit --anyway`, or "
            "drop it with `mnemon discard`."
        )


def waiting(library: str | Path) -> Candidate:
    """The candidate that is kept aside.

    Raises:
        MnemonError: there is none, or it is damaged.
    """
    return read_candidate(Library.open(library))


def commit(library: str | Path) -> int:
    """Take the candidate that was kept aside into the library after all; returns the new state.

    Raises:
        MnemonError: there is none, it is damaged, or the library has changed since.
    """
    return commit_candidate(Library.open(library))


def discard(library: str | Path) -> None:
    """Drop the candidate that was kept aside.

    Raises:
        MnemonError: there is none.
    """
    discard_candidate(Library.open(library))
