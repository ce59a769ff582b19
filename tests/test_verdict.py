from typing import Any

import pytest

from mnemon.verdict import identity_before, in_words, weak


def row(encoders: str = "world", **identities: tuple[float | None, float | None]) -> dict[str, Any]:
    concepts = {
        name: {"identity_alignment": identity, "identity_ceiling": ceiling}
        for name, (identity, ceiling) in identities.items()
    }
    return {"encoders": encoders, "settings": {}, "concepts": concepts}


@pytest.mark.parametrize(
    ("now", "ceiling", "before", "said"),
    [
        (0.48, 0.9, 0.5, "rex kept 96 %."),
        (0.55, 0.9, 0.5, "rex kept 110 %."),
        (0.40, 0.9, 0.5, "rex kept 80 %, partly forgotten."),
        (0.10, 0.9, 0.5, "rex kept 20 %, largely forgotten."),
        (-0.1, 0.9, 0.5, "rex kept 0 %, largely forgotten."),
        (0.47, 0.9, None, "rex is weak: 52 % of what its photos reach."),
        (0.80, 0.9, None, "rex reached 89 % of what its photos reach."),
        (0.80, None, None, "rex reached 0.80."),  # one photo reaches nothing among itself
        (None, None, None, ""),  # imported: no photos to score against
    ],
)
def test_a_score_in_words(now: float | None, ceiling: float | None, before: float | None, said: str) -> None:
    assert in_words(row(rex=(now, ceiling)), {} if before is None else {"rex": before}) == said


def test_weak_concepts_are_those_far_below_their_photos() -> None:
    assert weak(row(rex=(0.4, 0.9), tom=(0.8, 0.9), sip=(0.4, None), zip=(None, 0.9))) == ["rex"]


def test_before_is_the_newest_row_by_the_same_encoders() -> None:
    rows = [row(rex=(0.5, 1.0)), row(rex=(0.6, 1.0)), row("hub", rex=(0.9, 1.0)), row(rex=(None, None))]
    assert identity_before(row(rex=(0.4, 1.0)), rows) == {"rex": 0.6}
