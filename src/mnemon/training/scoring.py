"""Which concepts a new row of scores samples again, and which keep the scores they had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mnemon.evaluation import Encoders, EvalSettings, evaluate
from mnemon.evaluation.evaluate import OnImages, default_prompts
from mnemon.evaluation.forecast import Changes, State, movements, prompt_features
from mnemon.library import Library, Proposal, kept_fusion
from mnemon.methods.base import TrainedConcept
from mnemon.methods.text_grams import Factors
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.verdict import measured_as

Policy = Literal["all", "forecast", "new"]
"""Sample every concept again; the new ones, those that moved and a few in turn; or the new ones only."""
MOVED = 0.1
"""The movement since a concept was last sampled from which it is sampled again."""
IN_TURN = 2
"""So many concepts that have hardly moved are sampled again all the same, those first whose scores are oldest."""


@dataclass(frozen=True)
class Carried:
    """Scores that are kept.

    Attributes:
        scores: concept -> its scores in the row before, with "sampled", the revision in which they were measured, and
            "movement", the root of the sum of the squared movements since then.
        forecast: every earlier concept's movement since it was last sampled.
    """

    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    forecast: Mapping[str, float] = field(default_factory=dict)


def carried_scores(policy: Policy, row: Mapping[str, Any], revision: int, moved: Mapping[str, float]) -> Carried:
    """What of the `row` of the revision before, of that number, also holds after a step by which its concepts `moved`.

    A concept whose movement is not known is sampled again.
    """
    since = {name: scores.get("movement", 0.0) for name, scores in row["concepts"].items() if name in moved}
    forecast = {name: (earlier**2 + moved[name] ** 2) ** 0.5 for name, earlier in since.items()}
    known = {
        name: {**row["concepts"][name], "sampled": row["concepts"][name].get("sampled", revision), "movement": total}
        for name, total in forecast.items()
    }
    if policy == "forecast":
        still = [name for name in sorted(known, key=lambda name: known[name]["sampled"]) if forecast[name] < MOVED]
        known = {name: known[name] for name in still[IN_TURN:]}
    return Carried(known, forecast)


class Scorer:
    """Scores the concepts of a library and new ones, before or after these are committed.

    Args:
        library: as it is before the new concepts; its lock is held.
        policy: which of its concepts are sampled again.
    """

    def __init__(
        self, library: Library, base: Base, encoders: Encoders, settings: EvalSettings, policy: Policy
    ) -> None:
        self._library, self._base, self._encoders, self._settings = library, base, encoders, settings
        self._policy: Policy = policy
        self._revision = library.revision
        self._before = State(library.method, library.learned(), kept_fusion(library))
        self._references = library.all_references()
        self._row = library.rows().get(library.revision)

    def row(
        self, new: Sequence[Proposal], fused: Changes | None = None, on_images: OnImages | None = None
    ) -> dict[str, Any]:
        """The row of the score matrix with `new` in the model, as JSON; `fused` is the change of all concepts, if the
        method fuses."""
        after = replace(self._before, concepts=[*self._before.concepts, *(one.learned for one in new)], fused=fused)
        carried = self._carried(after)
        references = self._references | {one.learned.name: dict(one.references) for one in new if one.references}
        with Composed(self._base, after.method, after.concepts, fused) as composed:
            prompts = default_prompts(composed, self._encoders, self._settings)
            sampled = {name: one for name, one in prompts.items() if name not in carried.scores}
            row = evaluate(composed, references, self._encoders, self._settings, on_images, prompts=sampled)
        row.concepts = {name: row.concepts.get(name) or dict(carried.scores[name]) for name in prompts}
        return row.to_json()

    def _carried(self, after: State) -> Carried:
        settings = self._settings.to_row_json(self._encoders.prompts)
        row, now = self._row, measured_as({"encoders": self._encoders.name, "settings": settings})
        if row is None or self._policy == "all" or measured_as(row) != now:
            return Carried()
        moved = movements(self._base, self._before, after, self._features)
        return carried_scores(self._policy, row, self._revision, moved)

    def _features(self, concept: TrainedConcept) -> Factors:
        """Kept with the library once they were gathered."""
        kept = self._library.prompt_features(concept.name)
        if kept is None:
            kept = prompt_features(self._base, self._library.method, concept)
            self._library.write_prompt_features(concept.name, kept)
        return kept
