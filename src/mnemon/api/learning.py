"""Teaching a library: one more concept, or several in the same steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnemon.api.opening import encoders_of, opened_or_created
from mnemon.data import Concept
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.evaluate import OnImages
from mnemon.methods.base import Method
from mnemon.models import Base
from mnemon.training import TrainingSettings
from mnemon.training.early_stopping import Goal
from mnemon.training.forgetting_budget import check_none_waits
from mnemon.training.session import OnStep, TrainingSession
from mnemon.training.tasks import PhotoSettings


@dataclass(frozen=True)
class LearnResult:
    """What `learn` did: the library's new state, the measured row (None if not scored), and the seconds it took: in
    training, in fusing the concepts (0 for methods that do not fuse) and in scoring (which is also where concepts are
    fused with `max_forgetting`)."""

    state: int
    row: dict[str, Any] | None
    training_seconds: float
    fusion_seconds: float
    scoring_seconds: float
    until: dict[str, Any] | None = None
    """With a goal what became of it (`Watch.facts`), and the seconds of its checks, which are part of the training."""


def learn(library: str | Path, concept: Concept, *, references: Concept | None = None, **options: Any) -> LearnResult:
    """Teach a library one more concept, and measure what it knows of every concept so far.

    A library that does not exist yet is made, on `base` ("world" by default) and with `method` ("stamina" by
    default); one that exists keeps its own. A call that was killed goes on where it was when it is made again.

    Args:
        library: the library's folder.
        concept: name, photos and class noun.
        references: other photos of the concept, never trained on, to score against; the training photos without them.
        options: those of `learn_together`.

    Raises:
        MnemonError: anything in the way, in one sentence; the library is as it was then.
    """
    return learn_together(library, [concept], references=[references], **options)


def learns_together(method: Method) -> bool:
    """Whether concepts of the method can be learned in the same steps."""
    return method.concurrent


def learn_together(
    library: str | Path,
    concepts: Sequence[Concept],
    *,
    base: str | Base | None = None,
    method: str | Method | None = None,
    references: Sequence[Concept | None] | None = None,
    photos: PhotoSettings | None = None,
    training: TrainingSettings | None = None,
    prior: int = 0,
    score: EvalSettings | None = None,
    scored: bool = True,
    max_forgetting: float | None = None,
    until: Goal | None = None,
    encoders: Encoders | None = None,
    on_step: OnStep | None = None,
    on_images: OnImages | None = None,
) -> LearnResult:
    """Teach a library several concepts in the same steps, a batch of each in every step; a commit for each.

    Args:
        library: the library's folder.
        concepts: more than one only for methods that learn them together (`learns_together`).
        base: a base, or the name of one: "world", a diffusers folder or a hub id.
        method: a method or its name.
        references: for each concept other photos of it, as for `learn`.
        photos, training, score: settings; defaults are the method's and the base's own.
        prior: class images to draw from the bare base and to train on as well (prior preservation).
        scored: measure the row of the score matrix, and keep features of the references for later rows.
        max_forgetting: refuse the commit if the identity alignment of an earlier concept falls by more than this below
            its best so far; what was learned is then kept aside (`api.commit`, `api.discard`).
        until: stop before the last step, when this is reached; for one concept with references.
        encoders: what measures; by default the base's own, or CLIP and DINO.
        on_step: hears the training's progress.
        on_images: hears the images that are scored.

    Raises:
        Refused: earlier concepts fall by more than `max_forgetting`.
        MnemonError: anything in the way, in one sentence; the library is as it was then.
    """
    held_out = references or [None] * len(concepts)
    _check_options(scored, held_out, max_forgetting, until)
    with opened_or_created(Path(library), base, method) as (opened, found), opened.lock():
        check_none_waits(opened)
        for concept in concepts:
            opened.check_name(concept.name)
        # Before the training, since encoders may have to be fetched from the hub, and that may fail.
        measure = (encoders or encoders_of(found)) if scored else None
        how = training or TrainingSettings()
        teaching = TrainingSession(opened, found, concepts, held_out, how, measure, score, max_forgetting, until)
        proposals = teaching.learn(photos, prior, on_step)
        row, fused = teaching.judge(proposals, on_images)
        teaching.keep(proposals, fused)
        row = teaching.measure(row, on_images)
    seconds = teaching.seconds
    scoring = seconds["judging"] + seconds["measuring"]
    return LearnResult(opened.state, row, seconds["training"], seconds["keeping"], scoring, teaching.stopped())


def _check_options(
    scored: bool, held_out: Sequence[Concept | None], max_forgetting: float | None, until: Goal | None
) -> None:
    if max_forgetting is not None and not scored:
        raise MnemonError("What is forgotten is told by scores: leave out max_forgetting, or learn with scores.")
    if until is not None and not (scored and len(held_out) == 1 and held_out[0]):
        raise MnemonError("To stop at a goal takes one concept at a time, references of it, and scores.")
