"""Stopping a concept's training when it is learned well enough."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from mnemon.data import Concept
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.alignment import mean_pairwise_cosine, self_similarity
from mnemon.evaluation.prompts import concept_prompts, prompt_set
from mnemon.methods.base import Method
from mnemon.models import Base
from mnemon.sampling import sample
from mnemon.training.run import StoppingCriterion

STEPS = 20
FIRST_SEED = 5000  # not those of the scores, which would then be chosen to be good


@dataclass(frozen=True)
class Goal:
    """Stop as soon as the concept's identity alignment with its held-out references is this share of their ceiling.

    A check draws an image of each evaluation prompt (8 of the world's, 16 of photographs) in 20 denoising steps.

    Raises:
        MnemonError: a value does not fit.
    """

    identity: float
    every: int = 50
    """Training steps from one check to the next."""

    def __post_init__(self) -> None:
        if not self.identity > 0 or self.every < 1:
            raise MnemonError("A goal is a share of the ceiling above 0, such as 0.95, checked every 1 or more steps.")


class Watch:
    """Checks one concept while it is trained, and remembers what the checks found."""

    def __init__(
        self, goal: Goal, base: Base, method: Method, concept: Concept, features: Mapping[str, Tensor], by: Encoders
    ) -> None:
        self._goal, self._base, self._encoders, self._known = goal, base, by, features["identity"]
        self._ceiling = self_similarity(self._known)
        if math.isnan(self._ceiling):
            raise MnemonError(f"One reference of '{concept.name}' tells no ceiling: give at least two photos.")
        chosen = prompt_set(by.prompts)
        count, name = len(chosen.templates), method.prompt_name(concept.name, concept.class_noun)
        self._score = EvalSettings(count, FIRST_SEED, num_inference_steps=STEPS)
        self._prompts = concept_prompts(name, concept.class_noun, chosen, count).prompts
        self._stopped: int | None = None
        self._share: float | None = None
        self._seconds = 0.0

    def until(self) -> StoppingCriterion:
        """For the training loop. All that decides an answer is in its name."""
        known = hashlib.sha256(self._known.numpy().tobytes()).hexdigest()
        settings = self._score.to_row_json(self._encoders.prompts)
        name = json.dumps([asdict(self._goal), self._encoders.name, settings, known])
        return StoppingCriterion(self._reached, self._goal.every, name)

    def facts(self, steps: int) -> dict[str, Any]:
        """The goal, the steps that were taken of `steps`, the checks they needed, and the share reached, None if the
        goal was not. The same for a run that was killed and went on."""
        taken = steps if self._stopped is None else self._stopped
        checks = (taken if self._stopped is not None else taken - 1) // self._goal.every
        return {**asdict(self._goal), "steps": taken, "of": steps, "checks": checks, "share": self._share}

    @property
    def seconds(self) -> float:
        """What the checks of this process took."""
        return self._seconds

    def _reached(self, step: int) -> bool:
        began, how = time.monotonic(), self._score
        images = sample(self._base, self._prompts, how.seeds(how.num_images), how.sampling)
        found = self._encoders.identity(images)
        share = mean_pairwise_cosine(found, self._known) / self._ceiling
        self._seconds += time.monotonic() - began
        if share < self._goal.identity:
            return False
        self._stopped, self._share = step, share
        return True
