"""The score matrix of a library, and the upper bound of what a base can learn."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from mnemon.api.memory import gpu_errors
from mnemon.api.opening import base_named, base_of, encoders_of
from mnemon.data import photos_tensor
from mnemon.evaluation import (
    Encoders,
    EvalSettings,
    ScoreMatrix,
    evaluate_library,
    matrix_from_rows,
    reference_features,
)
from mnemon.evaluation import evaluate as evaluate_composed
from mnemon.evaluation.evaluate import OnImages
from mnemon.library import Library
from mnemon.methods import method_from
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.training import OnStep, make_tasks, train


def evaluate(
    library: str | Path,
    *,
    base: str | Base | None = None,
    score: EvalSettings | None = None,
    encoders: Encoders | None = None,
    again: bool = False,
    on_revision: Callable[[int, int], None] | None = None,
    on_images: Callable[[int, str | None, Tensor], None] | None = None,
) -> ScoreMatrix:
    """Fill the score matrix R[t, j]: score every revision of the library that has no row yet, or all of them `again`.

    Args:
        on_revision: called with the revision being scored and the number of revisions.
        on_images: called with the revision, the concept (None for control prompts) and the images.

    Returns:
        The matrix of identity alignment; `library.rows()` holds all scores.
    """
    newest = Library.open(library)
    found = base_of(newest, base)
    encoders = encoders or encoders_of(found)
    with newest.lock(), gpu_errors(found):
        rows = newest.rows()
        for revision in range(1, newest.revision + 1):
            if on_revision is not None:
                on_revision(revision, newest.revision)
            if again or revision not in rows:
                past = Library.open(library, at=revision)
                row = evaluate_library(past, found, encoders, score, _at(on_images, revision))
                newest.write_row(revision, row)
    return matrix_from_rows(newest.rows(), "identity_alignment")


def single_lora_identity_ratio(
    base: str | Base, seeds: Sequence[int] = (901, 902, 903, 904), on_step: OnStep | None = None
) -> float:
    """The upper bound of the base: identity alignment of one concept learned by `lora` alone, over the self-similarity
    of renders of the concept; the mean over concepts of the world, on images not trained on.
    """
    from mnemon.world import thing_concept

    found = base_named(base)
    encoders, method = encoders_of(found), method_from("lora")
    ratios = []
    for seed in seeds:
        concept = thing_concept("it", seed)
        learned = train(found, method, make_tasks(found, method, [concept.photos(5, seed=1)]), on_step=on_step)
        references = {"it": reference_features(encoders, photos_tensor(concept.photos(16, seed=2), found.resolution))}
        with Composed(found, method, learned) as composed:
            scores = evaluate_composed(composed, references, encoders).concepts["it"]
        ratios.append(scores["identity_alignment"] / scores["identity_ceiling"])
    return sum(ratios) / len(ratios)


def _at(on_images: Callable[[int, str | None, Tensor], None] | None, revision: int) -> OnImages | None:
    return None if on_images is None else lambda name, images: on_images(revision, name, images)
