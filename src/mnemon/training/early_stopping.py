"""Early stopping: end a concept's training when its identity alignment is high enough."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
class EarlyStopping:
    """Stop as soon as the concept's identity alignment with its held-out references is this share of their ceiling.

    A check samples an image of each evaluation prompt (8 of the world's, 16 of photographs) in 20 denoising steps.

    Raises:
        MnemonError: a value does not fit.
    """

    identity: float
    every: int = 50
    """Training steps from one check to the next."""

    def __post_init__(self) -> None:
        if not self.identity > 0 or self.every < 1:
            raise MnemonError(
                "Early stopping needs a share of the ceiling above 0, such as 0.95, checked every 1 or more steps."
            )


class IdentityMonitor:
    """Checks one concept's identity alignment while it is trained."""

    def __init__(
        self,
        settings: EarlyStopping,
        base: Base,
        method: Method,
        concept: Concept,
        references: Mapping[str, Tensor],
        encoders: Encoders,
    ) -> None:
        self._settings, self._base, self._encoders = settings, base, encoders
        self._references = references["identity"]
        self._ceiling = self_similarity(self._references)
        if math.isnan(self._ceiling):
            raise MnemonError(f"One reference of '{concept.name}' gives no ceiling: give at least two photos.")
        chosen = prompt_set(encoders.prompts)
        count, name = len(chosen.templates), method.prompt_name(concept.name, concept.class_noun)
        steps = min(STEPS, base.profile.num_inference_steps)
        own = EvalSettings.of_base(base)
        self._score = replace(own, num_images=count, first_seed=FIRST_SEED, num_inference_steps=steps)
        self._prompts = concept_prompts(name, concept.class_noun, chosen, count).prompts
        self._stopped: int | None = None
        self._share: float | None = None
        self._seconds = 0.0

    def criterion(self) -> StoppingCriterion:
        """For the training loop. All that decides an answer is in its name."""
        references = hashlib.sha256(self._references.numpy().tobytes()).hexdigest()
        score = self._score.to_row_json(self._encoders.prompts)
        name = json.dumps([asdict(self._settings), self._encoders.name, score, references])
        return StoppingCriterion(self._reached, self._settings.every, name)

    def report(self, steps: int) -> dict[str, Any]:
        """The settings, the steps taken of `steps`, the checks they needed, and the share of the ceiling at which the
        run stopped, None if it did not. The same for a run that was killed and resumed."""
        taken = steps if self._stopped is None else self._stopped
        checks = (taken if self._stopped is not None else taken - 1) // self._settings.every
        return {**asdict(self._settings), "steps": taken, "of": steps, "checks": checks, "share": self._share}

    @property
    def seconds(self) -> float:
        """What the checks of this process took."""
        return self._seconds

    def _reached(self, step: int) -> bool:
        began, score = time.monotonic(), self._score
        images = sample(self._base, self._prompts, score.seeds(score.num_images), score.sampling)
        share = mean_pairwise_cosine(self._encoders.identity(images), self._references) / self._ceiling
        self._seconds += time.monotonic() - began
        if share < self._settings.identity:
            return False
        self._stopped, self._share = step, share
        return True
