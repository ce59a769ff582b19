"""One call of `learn` on an open library: train, check the forgetting budget, commit, evaluate."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.data import Concept, photos_tensor
from mnemon.evaluation import Encoders, EvalSettings, evaluate_library, reference_features
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Library, Proposal, fused_changes
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.sampling import ImageMetadata, SamplingSettings, sample, save_image
from mnemon.training.early_stopping import EarlyStopping, IdentityMonitor
from mnemon.training.forgetting_budget import ForgettingBudget
from mnemon.training.loop import OnStep, train
from mnemon.training.prompts import preview_prompt
from mnemon.training.resume import discard_checkpoint
from mnemon.training.settings import TrainingSettings
from mnemon.training.tasks import PhotoSettings, make_tasks

PREVIEW = SamplingSettings(num_inference_steps=20)


@dataclass(frozen=True)
class LearnResult:
    """What `learn` did.

    Attributes:
        revision: the library's new revision.
        row: its row of the score matrix; None if not scored.
        training_seconds, fusion_seconds, scoring_seconds: fusion is 0 for methods that do not fuse; with a forgetting
            budget concepts are fused while they are scored.
        early_stopping: with early stopping what became of it (`IdentityMonitor.report`), and the seconds of its checks,
            which are part of the training.
    """

    revision: int
    row: dict[str, Any] | None
    training_seconds: float
    fusion_seconds: float
    scoring_seconds: float
    early_stopping: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """With the keys of the command's JSON."""
        keys = {"revision": "state", "early_stopping": "until"}
        return {keys.get(name, name): value for name, value in vars(self).items()}


@dataclass(kw_only=True)
class TrainingSession:
    """Learns concepts into a library whose lock is held.

    Attributes:
        references: for each concept other photos of it to score against, or None for the training photos.
        encoders: for scores; None for no scores at all.
        max_forgetting: by how much the identity alignment of an earlier concept may fall, if that is bounded.
        early_stopping: for one concept with scores.
    """

    library: Library
    base: Base
    concepts: Sequence[Concept]
    references: Sequence[Concept | None]
    training: TrainingSettings
    photos: PhotoSettings | None = None
    num_class_images: int = 0
    encoders: Encoders | None = None
    score: EvalSettings | None = None
    max_forgetting: float | None = None
    early_stopping: EarlyStopping | None = None
    _seconds: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._budget: ForgettingBudget | None = None
        self._monitor: IdentityMonitor | None = None
        library, base, encoders = self.library, self.base, self.encoders
        if self.max_forgetting is not None and encoders and library.names():
            self._budget = ForgettingBudget(library, base, encoders, self.score, self.max_forgetting)
        pairs = zip(self.concepts, self.references, strict=True)
        self._features = [self._reference_features(references or concept) for concept, references in pairs]
        if self.early_stopping is not None and encoders and self._features[0]:
            self._monitor = IdentityMonitor(
                self.early_stopping, base, library.method, self.concepts[0], self._features[0], encoders
            )

    def run(self, on_step: OnStep | None = None, on_images: OnImages | None = None) -> LearnResult:
        """Raises:
        BudgetExceeded: an earlier concept falls too far; the new ones are staged instead of committed.
        """
        with self._timed("training"):
            trained = self._train(on_step)
        proposals = self._proposals(trained)
        with self._timed("checking"):
            row, fused = self._budget.check(proposals, on_images) if self._budget else (None, None)
        with self._timed("committing"):
            self._commit(proposals, fused)
        with self._timed("scoring"):
            row = self._evaluate(row, on_images)
        monitor, seconds = self._monitor, self._seconds
        return LearnResult(
            revision=self.library.revision,
            row=row,
            training_seconds=seconds["training"],
            fusion_seconds=seconds["committing"],
            scoring_seconds=seconds["checking"] + seconds["scoring"],
            early_stopping={**monitor.report(self._steps), "seconds": monitor.seconds} if monitor else None,
        )

    def _train(self, on_step: OnStep | None) -> list[TrainedConcept]:
        library, base, method = self.library, self.base, self.library.method
        earlier = library.learned()
        tasks = make_tasks(
            base,
            method,
            self.concepts,
            earlier,
            seed=self.training.seed,
            photos=self.photos,
            num_class_images=self.num_class_images,
        )
        return train(
            base,
            method,
            tasks,
            earlier,
            self.training,
            library.path / "training",
            on_step=on_step,
            on_preview=lambda step: _preview(library.path, base, method, self.concepts[0], step),
            stopping=self._monitor.criterion() if self._monitor else None,
        )

    def _proposals(self, trained: Sequence[TrainedConcept]) -> list[Proposal]:
        """What each commit is to say. A change that concepts share comes first, so that every revision has it."""
        settings: dict[str, Any] = {
            "training": asdict(self.training),
            "seconds": round(self._seconds["training"] / len(self.concepts), 1),
        }
        if self._monitor:
            settings["until"] = self._monitor.report(self._steps)
        each = zip(trained, self.concepts, self.references, self._features, strict=True)
        proposals = [
            Proposal(learned, _sources(concept), {**settings, "held_out": references is not None}, features)
            for learned, concept, references, features in each
        ]
        return sorted(proposals, key=lambda proposal: not proposal.learned.deltas)

    def _commit(self, proposals: Sequence[Proposal], fused: Mapping[str, Delta] | None) -> None:
        """Commit the concepts, and fuse them with the earlier ones where that was not done yet."""
        for one in proposals:
            self.library.commit(one.learned, one.photos, one.settings, one.references)
        discard_checkpoint(self.library.path / "training")
        if fused is not None:
            self.library.write_fused(fused)
        elif self.library.method.fuses:
            fused_changes(self.library, self.base)

    def _evaluate(self, row: dict[str, Any] | None, on_images: OnImages | None) -> dict[str, Any] | None:
        """Keep the row of the library's new revision, scored now if it was not yet; None without scores."""
        if row is None and self.encoders:
            row = evaluate_library(self.library, self.base, self.encoders, self.score, on_images)
        if row is not None:
            self.library.write_row(self.library.revision, row)
        return row

    def _reference_features(self, concept: Concept) -> dict[str, Tensor] | None:
        """What is kept of the reference images, so that the concept can be scored without them."""
        if self.encoders is None:
            return None
        return reference_features(self.encoders, photos_tensor(concept, self.base.resolution))

    @property
    def _steps(self) -> int:
        return self.library.method.steps if self.training.steps is None else self.training.steps

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds[phase] = time.monotonic() - began


def _sources(concept: Concept) -> list[dict[str, str]]:
    return [{"source": photo.source, "sha256": photo.sha256} for photo in concept.photos]


def _preview(path: Path, base: Base, method: Method, concept: Concept, step: int) -> None:
    """Four images of the concept as if the training had ended now."""
    prompt = preview_prompt(concept, method)
    images = sample(base, [prompt] * 4, range(4), PREVIEW)
    for seed, image in enumerate(images):
        metadata = ImageMetadata.of(base, prompt, seed, PREVIEW, library=str(path), concepts=(concept.name,))
        save_image(path / "previews" / concept.name / f"step-{step:05d}-{seed}.png", image, metadata)
