"""A row of the score matrix in words."""

from collections.abc import Mapping, Sequence
from typing import Any

WEAK = 0.65
"""A concept below this share of its ceiling is called weak."""
KEPT = 0.9
"""An earlier concept below this share of its score before is called partly forgotten."""


def measured_as(row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What two of a library's rows must share for their scores to be compared: encoders and settings but the batch,
    which follows from a GPU's memory and changes rounding only."""
    return row["encoders"], {key: value for key, value in row["settings"].items() if key != "batch"}


def identity_before(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Concept -> identity alignment in the newest other of `rows` that has it, by the same encoders and settings."""
    found: dict[str, float] = {}
    for other in rows:
        if other != row and measured_as(other) == measured_as(row):
            identities = {name: scores["identity_alignment"] for name, scores in other["concepts"].items()}
            found |= {name: value for name, value in identities.items() if value is not None}
    return found


def verdicts(row: Mapping[str, Any], before: Mapping[str, float]) -> dict[str, str]:
    """Concept -> what its scores say: "kept 96 %", "weak: 52 % of what its photos reach".

    Args:
        row: of the library, as JSON.
        before: what each concept scored earlier (`identity_before`).
    """
    found = {name: _verdict(scores, before.get(name)) for name, scores in row["concepts"].items()}
    return {name: words for name, words in found.items() if words}


def in_words(row: Mapping[str, Any], before: Mapping[str, float]) -> str:
    """The verdicts as one sentence: "sip kept 96 %; rex is weak: 52 % of what its photos reach."; "" without scores."""
    parts = [f"{name} {words}" for name, words in verdicts(row, before).items()]
    return "; ".join(parts) + "." if parts else ""


def weak(row: Mapping[str, Any]) -> list[str]:
    """The concepts that are."""
    return [name for name, scores in row["concepts"].items() if (share := _share(scores)) is not None and share < WEAK]


def _verdict(scores: Mapping[str, Any], before: float | None) -> str:
    identity, share = scores["identity_alignment"], _share(scores)
    if identity is None:
        return ""
    if before is not None and before > 0:
        kept = max(identity, 0.0) / before
        lost = "" if kept >= KEPT else ", partly forgotten" if kept >= 0.5 else ", largely forgotten"
        return f"kept {kept:.0%}{lost}".replace("%", " %")
    if share is None:
        return f"reached {identity:.2f}"
    reached = f"{share:.0%} of what its photos reach".replace("%", " %")
    return f"is weak: {reached}" if share < WEAK else f"reached {reached}"


def _share(scores: Mapping[str, Any]) -> float | None:
    """Identity alignment as a share of its ceiling."""
    identity, ceiling = scores["identity_alignment"], scores["identity_ceiling"]
    return None if identity is None or not ceiling else float(identity / ceiling)
