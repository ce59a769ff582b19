"""Concepts on their way into a library that is open: trained, judged, committed, measured."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.api.evaluating import row_of
from mnemon.api.opening import kept_fusion
from mnemon.data import Concept, photos_tensor
from mnemon.evaluation import Encoders, EvalSettings, reference_features
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Library, Proposal
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.sampling import ImageMetadata, SamplingSettings, sample, save_image
from mnemon.training import PhotoSettings, TrainingSettings, discard_checkpoint, make_tasks, train
from mnemon.training.early_stopping import Goal, Watch
from mnemon.training.forgetting_budget import Guard
from mnemon.training.prompts import preview_prompt

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called with the steps done, the steps in all, and what is logged."""


class TrainingSession:
    """Teaches concepts to a library that is locked: `learn`, then `judge`, `keep` and `measure`.

    Args:
        held_out: for each concept other photos of it, or None.
        encoders: what measures; None for no scores at all.
        most: by how much an earlier concept may fall, if that is bounded.
        goal: when to stop early, if ever; for one concept.

    Attributes:
        seconds: what each of the four took.
    """

    def __init__(
        self,
        library: Library,
        base: Base,
        concepts: Sequence[Concept],
        held_out: Sequence[Concept | None],
        training: TrainingSettings,
        encoders: Encoders | None,
        score: EvalSettings | None,
        most: float | None,
        goal: Goal | None,
    ) -> None:
        self.library, self.base, self.training = library, base, training
        self.concepts, self.held_out, self.encoders, self.score = concepts, held_out, encoders, score
        self.guard, self.watch = None, None
        if most is not None and encoders and library.names():
            self.guard = Guard(library, base, encoders, score, most)
        self.features = [self._features(other or own) for own, other in zip(concepts, held_out, strict=True)]
        if goal is not None and encoders and self.features[0]:
            self.watch = Watch(goal, base, library.method, concepts[0], self.features[0], encoders)
        self.seconds: dict[str, float] = {}

    def learn(self, photos: PhotoSettings | None, prior: int, on_step: OnStep | None) -> list[Proposal]:
        """Train the concepts; what each commit is to say. A change that concepts share comes first, so that every
        state of the history has it."""
        with self._timed("training"):
            learned = self._train(photos, prior, on_step)
        facts = {"training": asdict(self.training), "seconds": round(self.seconds["training"] / len(self.concepts), 1)}
        if self.watch:
            facts["until"] = self.watch.facts(self._steps)
        each = list(zip(learned, self.concepts, self.held_out, self.features, strict=True))
        return [
            Proposal(one, _sources(concept), {**facts, "held_out": other is not None}, known)
            for one, concept, other, known in sorted(each, key=lambda parts: not parts[0].deltas)
        ]

    def judge(
        self, proposals: Sequence[Proposal], on_images: OnImages | None
    ) -> tuple[dict[str, Any] | None, dict[str, Delta] | None]:
        """Row and fused changes with the concepts in the model, where forgetting is bounded; else neither.

        Raises:
            Refused: an earlier concept falls too far; the new ones are kept aside.
        """
        with self._timed("judging"):
            return self.guard.passed(proposals, on_images) if self.guard else (None, None)

    def keep(self, proposals: Sequence[Proposal], fused: Mapping[str, Delta] | None) -> None:
        """Commit the concepts, and fuse them with the earlier ones where that was not done yet."""
        with self._timed("keeping"):
            for one in proposals:
                self.library.commit(one.learned, one.photos, one.settings, one.references)
            discard_checkpoint(self.library.path / "training")
            if fused is not None:
                self.library.write_fused(fused)
            elif self.library.method.fuses:
                kept_fusion(self.library, self.base)

    def measure(self, row: dict[str, Any] | None, on_images: OnImages | None) -> dict[str, Any] | None:
        """Keep the row of the library's new state, measured now if it was not yet; None without scores."""
        with self._timed("measuring"):
            if row is None and self.encoders:
                row = row_of(self.library, self.base, self.encoders, self.score, on_images)
            if row is not None:
                self.library.write_row(self.library.state, row)
        return row

    def stopped(self) -> dict[str, Any] | None:
        """What became of the goal, and the seconds of its checks."""
        return {**self.watch.facts(self._steps), "seconds": self.watch.seconds} if self.watch else None

    @property
    def _steps(self) -> int:
        return self.library.method.steps if self.training.steps is None else self.training.steps

    def _train(self, photos: PhotoSettings | None, prior: int, on_step: OnStep | None) -> list[TrainedConcept]:
        library, base, method, seed = self.library, self.base, self.library.method, self.training.seed
        earlier = library.learned()
        tasks = make_tasks(base, method, self.concepts, earlier, seed=seed, photos=photos, num_class_images=prior)
        return train(
            base,
            method,
            tasks,
            earlier,
            self.training,
            library.path / "training",
            on_step=on_step,
            on_preview=lambda step: _preview(library.path, base, method, self.concepts[0], step),
            stopping=self.watch.until() if self.watch else None,
        )

    def _features(self, concept: Concept) -> dict[str, Tensor] | None:
        """What is kept of the reference images, to score the concept against for ever after."""
        if self.encoders is None:
            return None
        return reference_features(self.encoders, photos_tensor(concept, self.base.resolution))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - began


def _sources(concept: Concept) -> list[dict[str, str]]:
    return [{"source": photo.source, "sha256": photo.sha256} for photo in concept.photos]


def _preview(path: Path, base: Base, method: Method, concept: Concept, step: int) -> None:
    """Four images as the concept would be drawn if training stopped now."""
    prompt = preview_prompt(concept, method)
    settings = SamplingSettings(num_inference_steps=20)
    images = sample(base, [prompt] * 4, range(4), settings)
    for seed, image in enumerate(images):
        facts = ImageMetadata.of(base, prompt, seed, settings, library=str(path), concepts=(concept.name,))
        save_image(path / "previews" / concept.name / f"step-{step:05d}-{seed}.png", image, facts)
