"""One call of `learn` on an open library: train, check the forgetting budget, commit, evaluate."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mnemon.data import Concept
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Library, Proposal, has_candidate, is_unfinished
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.models.quantization import weights_of
from mnemon.sampling import ImageMetadata, SamplingSettings, fitted, sample, save_image
from mnemon.training.committing import ScoredCommit
from mnemon.training.early_stopping import EarlyStopping, IdentityMonitor
from mnemon.training.loop import OnStep, train
from mnemon.training.prompt_check import check_training_prompts
from mnemon.training.prompts import preview_prompt
from mnemon.training.resume import discard_checkpoint, kept_checkpoints, run_folder
from mnemon.training.scoring import Policy
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
        policy: which earlier concepts are sampled again for them.
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
    policy: Policy = "all"
    max_forgetting: float | None = None
    early_stopping: EarlyStopping | None = None

    def __post_init__(self) -> None:
        self._monitor: IdentityMonitor | None = None
        self._committing = ScoredCommit(
            library=self.library,
            base=self.base,
            encoders=self.encoders,
            score=self.score,
            policy=self.policy,
            max_forgetting=self.max_forgetting,
            stage_refused=True,
        )
        pairs = zip(self.concepts, self.references, strict=True)
        self._features = [self._committing.reference_features(references or concept) for concept, references in pairs]
        if self.early_stopping is not None and self.encoders and self._features[0]:
            self._monitor = IdentityMonitor(
                self.early_stopping, self.base, self.library.method, self.concepts[0], self._features[0], self.encoders
            )

    def run(self, on_step: OnStep | None = None, on_images: OnImages | None = None) -> LearnResult:
        """Raises:
        BudgetExceeded: an earlier concept falls too far; the new ones are staged instead of committed.
        """
        try:
            return self._run(on_step, on_images)
        except Exception as error:
            self._say_what_is_kept(error)
            raise

    def _run(self, on_step: OnStep | None, on_images: OnImages | None) -> LearnResult:
        began = time.monotonic()
        trained = self._train(on_step)
        training_seconds = time.monotonic() - began
        try:
            self._committing.commit(self._proposals(trained, training_seconds), on_images)
        finally:
            if self._is_kept():
                self._discard_checkpoints()
        row = self._committing.finish(on_images)
        monitor, seconds = self._monitor, self._committing.seconds
        return LearnResult(
            revision=self.library.revision,
            row=row,
            training_seconds=training_seconds,
            fusion_seconds=seconds["committing"],
            scoring_seconds=seconds["checking"] + seconds["scoring"],
            early_stopping={**monitor.report(self._steps), "seconds": monitor.seconds} if monitor else None,
        )

    def _train(self, on_step: OnStep | None) -> list[TrainedConcept]:
        library, base, method = self.library, self.base, self.library.method
        earlier = library.learned()
        check_training_prompts(base, method, [self.concepts], earlier, with_class_images=self.num_class_images > 0)
        tasks = make_tasks(
            base,
            method,
            self.concepts,
            earlier,
            seed=self.training.seed,
            photos=self.photos,
            num_class_images=self.num_class_images,
            masked=self.training.masked_loss,
        )
        return train(
            base,
            method,
            tasks,
            earlier,
            self.training,
            self._folder,
            on_step=on_step,
            on_preview=lambda step: _preview(library.path, base, method, self.concepts[0], step),
            stopping=self._monitor.criterion() if self._monitor else None,
        )

    def _proposals(self, trained: Sequence[TrainedConcept], seconds: float) -> list[Proposal]:
        """What each commit is to say. A change that concepts share comes first, so that every revision has it."""
        settings: dict[str, Any] = {
            "training": asdict(self.training),
            "weights": weights_of(self.base),
            "seconds": round(seconds / len(self.concepts), 1),
        }
        if self._monitor:
            settings["until"] = self._monitor.report(self._steps)
        each = zip(trained, self.concepts, self.references, self._features, strict=True)
        proposals = [
            Proposal(learned, _sources(concept), {**settings, "held_out": references is not None}, features)
            for learned, concept, references, features in each
        ]
        return sorted(proposals, key=lambda proposal: not proposal.learned.deltas)

    def _is_committed(self) -> bool:
        names = self.library.names()
        return all(one.name in names for one in self.concepts)

    def _is_kept(self) -> bool:
        """Whether what was learned is in the library's folder without its checkpoint: committed, or staged."""
        return self._is_committed() or has_candidate(self.library)

    def _discard_checkpoints(self) -> None:
        discard_checkpoint(self._folder)
        discard_checkpoint(self._folder.parent)  # of a version that kept one for all concepts
        with suppress(OSError):  # TensorBoard's files may be there
            self._folder.rmdir()

    def _say_what_is_kept(self, error: Exception) -> None:
        kept = kept_checkpoints(self._folder)
        if self._is_committed():
            error.add_note(
                f"What was learned is in the library {self.library.path}, at revision {self.library.revision}: "
                "`mnemon evaluate` measures the scores that are missing."
            )
        elif is_unfinished(self.library.path):
            error.add_note("What was learned is kept: the next command that writes to the library finishes the commit.")
        elif kept:
            error.add_note(f"The training is kept in {kept[0]}: the same command goes on from there.")

    @property
    def _folder(self) -> Path:
        return run_folder(self.library.path, [concept.name for concept in self.concepts])

    @property
    def _steps(self) -> int:
        return self.library.method.steps if self.training.steps is None else self.training.steps


def _sources(concept: Concept) -> list[dict[str, str]]:
    return [{"source": photo.source, "sha256": photo.sha256} for photo in concept.photos]


def _preview(path: Path, base: Base, method: Method, concept: Concept, step: int) -> None:
    """Four images of the concept as if the training had ended now."""
    prompt = preview_prompt(concept, method)
    settings = fitted(PREVIEW, base)
    images = sample(base, [prompt] * 4, range(4), settings)
    for seed, image in enumerate(images):
        name = path.resolve().name
        metadata = ImageMetadata.of(base, prompt, seed, settings, library=name, concepts=(concept.name,))
        save_image(path / "previews" / concept.name / f"step-{step:05d}-{seed}.png", image, metadata)
