"""Teaching a library: one more concept, or several in the same steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.api.candidates import Guard, check_none_waits
from mnemon.api.opening import encoders_of, kept_fusion, opened_or_created
from mnemon.api.scoring import row_of
from mnemon.api.stopping import Goal, Watch
from mnemon.data import Concept, photos_tensor
from mnemon.errors import MnemonError
from mnemon.lessons import PhotoSettings, examples_of
from mnemon.library import Library, Proposal
from mnemon.methods.base import Learned, Method
from mnemon.metrics import Encoders, ScoreSettings, reference_features
from mnemon.metrics.measure import OnPictures
from mnemon.models import Base
from mnemon.prompts import class_prompt, preview_prompt
from mnemon.sampling import PictureFacts, draw, sampler_name, save_picture
from mnemon.sampling.drawn import calibration, class_pictures, rehearsed
from mnemon.training import Examples, Lesson, TrainingSettings, discard_snapshot, joined, train_together

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called with the steps done, the steps in all, and what is logged."""


@dataclass(frozen=True)
class Outcome:
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


def learn(library: str | Path, concept: Concept, *, references: Concept | None = None, **options: Any) -> Outcome:
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
    return method.at_once or (method.on_bare_base and method.order_free)


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
    score: ScoreSettings | None = None,
    scored: bool = True,
    max_forgetting: float | None = None,
    until: Goal | None = None,
    encoders: Encoders | None = None,
    on_step: OnStep | None = None,
    on_pictures: OnPictures | None = None,
) -> Outcome:
    """Teach a library several concepts in the same steps, a batch of each in every step; a commit for each.

    Args:
        library: the library's folder.
        concepts: more than one only for methods that learn them together (`learns_together`).
        base: a base, or the name of one: "world", a diffusers folder or a hub id.
        method: a method or its name.
        references: for each concept other photos of it, as for `learn`.
        photos, training, score: settings; defaults are the method's and the base's own.
        prior: class pictures to draw from the bare base and to train on as well (prior preservation).
        scored: measure the row of the score matrix, and keep features of the references for later rows.
        max_forgetting: refuse the commit if the identity alignment of an earlier concept falls by more than this below
            its best so far; what was learned is then kept aside (`api.commit`, `api.discard`).
        until: stop before the last step, when this is reached; for one concept with references.
        encoders: what measures; by default the base's own, or CLIP and DINO.
        on_step: hears the training's progress.
        on_pictures: hears the pictures that are scored.

    Raises:
        Refused: earlier concepts fall by more than `max_forgetting`.
        MnemonError: anything in the way, in one sentence; the library is as it was then.
    """
    if max_forgetting is not None and not scored:
        raise MnemonError("What is forgotten is told by scores: leave out max_forgetting, or learn with scores.")
    if until is not None and not (scored and len(concepts) == 1 and references and references[0]):
        raise MnemonError("To stop at a goal takes one concept at a time, references of it, and scores.")
    path, training = Path(library), training or TrainingSettings()
    with opened_or_created(path, base, method) as (opened, found), opened.lock():
        check_none_waits(opened)
        for concept in concepts:
            opened.check_name(concept.name)
        # Before the training, since encoders may have to be fetched from the hub, and that may fail.
        measure = (encoders or encoders_of(found)) if scored else None
        guard = None
        if max_forgetting is not None and measure and opened.names():
            guard = Guard(opened, found, measure, score, max_forgetting)
        held_out = references or [None] * len(concepts)
        features = [_features(measure, other or own, found) for own, other in zip(concepts, held_out, strict=True)]
        watch = None
        if until is not None and measure and features[0]:
            watch = Watch(until, found, opened.method, concepts[0], features[0], measure)
        began = time.monotonic()
        learned = _train(opened, found, concepts, photos, training, prior, on_step, watch)
        trained = time.monotonic()
        facts = {"training": asdict(training), "seconds": round((trained - began) / len(concepts), 1)}
        stopped = watch.facts(_steps(opened.method, training)) if watch else None
        if stopped:
            facts["until"] = stopped
        each = list(zip(learned, concepts, held_out, features, strict=True))
        # A change that concepts share comes first, so that every state of the history has it.
        proposals = [
            Proposal(one, _sources(concept), {**facts, "held_out": other is not None}, known)
            for one, concept, other, known in sorted(each, key=lambda parts: not parts[0].deltas)
        ]
        row, fused = guard.passed(proposals, on_pictures) if guard else (None, None)
        judged = time.monotonic()
        for one in proposals:
            opened.commit(one.learned, one.photos, one.settings, one.references)
        discard_snapshot(path / "training")
        if fused is not None:
            opened.write_fused(fused)
        elif opened.method.fuses:
            kept_fusion(opened, found)
        ready = time.monotonic()
        if row is not None:
            opened.write_row(opened.state, row)
        elif measure:
            row = _measure(opened, found, measure, score, on_pictures)
    scoring = judged - trained + time.monotonic() - ready
    checked = {**stopped, "seconds": watch.seconds} if stopped and watch else None
    return Outcome(opened.state, row, trained - began, ready - judged, scoring, checked)


def _steps(method: Method, training: TrainingSettings) -> int:
    return method.steps if training.steps is None else training.steps


def _train(
    library: Library,
    base: Base,
    concepts: Sequence[Concept],
    photos: PhotoSettings | None,
    training: TrainingSettings,
    prior: int,
    on_step: OnStep | None,
    watch: Watch | None,
) -> list[Learned]:
    method, earlier, seed = library.method, library.learned(), training.seed
    again = rehearsed(base, method, earlier, seed)
    lessons = [
        Lesson(
            concept.name,
            concept.noun,
            examples_of(base, method, concept, photos, seed),
            joined([_prior(base, concept, prior, seed), again]),
        )
        for concept in concepts
    ]
    return train_together(
        base,
        method,
        lessons,
        earlier,
        training,
        library.path / "training",
        on_step=on_step,
        on_preview=lambda step: _preview(library.path, base, method, concepts[0], step),
        calibration=calibration(base, method),
        until=watch.until() if watch else None,
    )


def _prior(base: Base, concept: Concept, number: int, seed: int) -> Examples | None:
    return class_pictures(base, class_prompt(concept), number, seed) if number else None


def _sources(concept: Concept) -> list[dict[str, str]]:
    return [{"source": photo.source, "sha256": photo.sha256} for photo in concept.photos]


def _features(encoders: Encoders | None, concept: Concept, base: Base) -> dict[str, Tensor] | None:
    """What is kept of the reference pictures, to score the concept against for ever after."""
    if encoders is None:
        return None
    return reference_features(encoders, photos_tensor(concept, base.resolution))


def _preview(path: Path, base: Base, method: Method, concept: Concept, step: int) -> None:
    """Four pictures as the concept would be drawn if training stopped now."""
    prompt = preview_prompt(concept, method)
    pictures = draw(base, [prompt] * 4, seeds=range(4), guidance=4.0, steps=20)
    made: dict[str, Any] = {"library": str(path), "concepts": (concept.name,), "sampler": sampler_name(base)}
    for seed, picture in enumerate(pictures):
        facts = PictureFacts(prompt, seed, 4.0, 20, base.name, **made)
        save_picture(path / "previews" / concept.name / f"step-{step:05d}-{seed}.png", picture, facts)


def _measure(
    library: Library, base: Base, encoders: Encoders, score: ScoreSettings | None, on_pictures: OnPictures | None
) -> dict[str, Any]:
    row = row_of(library, base, encoders, score, on_pictures)
    library.write_row(library.state, row)
    return row
