"""Learning: one more concept, or several in the same steps."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnemon.api.memory import gpu_errors
from mnemon.api.opening import encoders_of, opened_or_created
from mnemon.api.setting_up import set_up
from mnemon.data import Concept
from mnemon.data.report import few_of
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Library, check_no_candidate, is_unfinished, read_candidate
from mnemon.methods.base import Method
from mnemon.models import Base, Weights
from mnemon.training import OnStep, PhotoSettings, TrainingSettings
from mnemon.training.early_stopping import EarlyStopping
from mnemon.training.resume import discard_checkpoint, run_folder
from mnemon.training.scoring import Policy
from mnemon.training.session import LearnResult, TrainingSession
from mnemon.training.tasks import check_masks

log = logging.getLogger("mnemon")


def learn(
    library: str | Path,
    concept: Concept | Sequence[Concept],
    *,
    base: str | Base | None = None,
    method: str | Method | None = None,
    method_settings: Mapping[str, Any] | None = None,
    weights: Weights | None = None,
    memory: float | None = None,
    references: Concept | Sequence[Concept | None] | None = None,
    photos: PhotoSettings | None = None,
    training: TrainingSettings | Mapping[str, Any] | None = None,
    num_class_images: int = 0,
    score: EvalSettings | None = None,
    scored: bool = True,
    resample: Policy = "all",
    max_forgetting: float | None = None,
    early_stopping: EarlyStopping | None = None,
    encoders: Encoders | None = None,
    on_step: OnStep | None = None,
    on_images: OnImages | None = None,
) -> LearnResult:
    """Teach a library one more concept, or several in the same steps, and score every concept so far.

    A library that does not exist yet is made; one that exists keeps its base and method. A call that was killed goes
    on where it was when it is made again.

    Args:
        library: the library's folder.
        concept: name, photos and class noun; several only for methods that are `concurrent`, with a commit for each.
        base: a base, or the name of one: "world" (the default), a diffusers folder or a hub id.
        method: a method or its name; `DEFAULT_METHOD` of `mnemon.settings` without. By its name its learning rates are
            those of the base's profile.
        method_settings: of a method by its name.
        weights: precision of a base that is opened here; without, as the library was learned last, or by the profile.
        memory: of the GPU in GB, that the training is planned for; by default that of this machine's.
        references: other photos of the concept, or of each of several, never trained on, to score against; the
            training photos without them. Files that are trained on too are left out, with a warning.
        photos, training, score: settings; defaults are the method's and the base's own. Of training settings in a
            mapping those not given are the profile's; a `TrainingSettings` is taken as it is.
        num_class_images: class images to generate with the bare base and to train on as well (prior preservation).
        scored: whether to score, and to keep features of the references for later rows.
        resample: which concepts are sampled again for the new row: "all"; "forecast": the new ones, those that the
            forecast of forgetting says have moved, and a few in turn; or "new". The others keep their scores, marked.
        max_forgetting: refuse the commit if the identity alignment of an earlier concept falls by more than this below
            its best so far; the new concepts are then staged (`library.commit_candidate`, `discard_candidate`).
        early_stopping: stop before the last step, when this is reached; for one concept with references.
        encoders: for scores; by default the base's own, or CLIP and DINO.
        on_step: called with the training's progress.
        on_images: called with the images that are scored.

    Raises:
        BudgetExceeded: earlier concepts fall by more than `max_forgetting`.
        MnemonError: anything in the way, in one sentence; the library is as it was then.
    """
    concepts = [concept] if isinstance(concept, Concept) else list(concept)
    if references is None:
        references = [None] * len(concepts)
    given = [references] if isinstance(references, Concept) else references
    held_out = _held_out(concepts, given)
    masked = vars(training) if isinstance(training, TrainingSettings) else training or {}
    if masked.get("masked_loss"):
        check_masks(concepts)
    _check_options(held_out, scored, max_forgetting, early_stopping)
    setup = set_up(
        library, base, method=method, method_settings=method_settings, training=training, weights=weights, memory=memory
    )
    with (
        opened_or_created(Path(library), setup.base, setup.method) as (opened, found),
        opened.lock(),
        gpu_errors(found, setup.training),
    ):
        check_no_candidate(opened)
        for one in concepts:
            opened.check_name(one.name)
        session = TrainingSession(
            library=opened,
            base=found,
            concepts=concepts,
            references=held_out,
            training=setup.training,
            photos=photos,
            num_class_images=num_class_images,
            # Before the training, since encoders may have to be fetched from the hub, and that may fail.
            encoders=(encoders or encoders_of(found)) if scored else None,
            score=score,
            policy=resample,
            max_forgetting=max_forgetting,
            early_stopping=early_stopping,
        )
        return session.run(on_step, on_images)


def finish_commit(library: Library) -> bool:
    """Commit the rest of concepts that were learned together, if a crash or a kill came between; whether it did."""
    if not is_unfinished(library.path):
        return False
    names = read_candidate(library).names
    with library.lock():
        discard_checkpoint(run_folder(library.path, names))
    return True


def _held_out(concepts: Sequence[Concept], references: Sequence[Concept | None]) -> list[Concept | None]:
    """The references without the files that are trained on.

    Raises:
        MnemonError: there are others than concepts, or a concept has none left.
    """
    if len(references) != len(concepts):
        raise MnemonError(f"{len(concepts)} concepts and {len(references)} references: give as many, or none.")
    trained = {photo.sha256 for concept in concepts for photo in concept.photos if photo.sha256}
    return [None if one is None else _without(one, trained) for one in references]


def _without(references: Concept, trained: Collection[str]) -> Concept:
    kept = tuple(photo for photo in references.photos if photo.sha256 not in trained)
    if not kept:
        raise MnemonError(
            f"All references of '{references.name}' are photos that it is trained on: give others, or none to score "
            "against the training photos."
        )
    if len(kept) < len(references.photos):
        names = [Path(photo.source).name for photo in references.photos if photo.sha256 in trained]
        log.warning("references of '%s' that are trained on are left out: %s.", references.name, few_of(names))
    return replace(references, photos=kept)


def _check_options(
    references: Sequence[Concept | None],
    scored: bool,
    max_forgetting: float | None,
    early_stopping: EarlyStopping | None,
) -> None:
    if max_forgetting is not None and not scored:
        raise MnemonError("Forgetting is measured by scores: leave out max_forgetting, or learn with scores.")
    if early_stopping is not None and not (scored and len(references) == 1 and references[0]):
        raise MnemonError("Early stopping takes one concept at a time, references of it, and scores.")
