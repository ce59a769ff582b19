"""The score matrix of a library, and how well a base can be taught at all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.api.opening import base_named, base_of, encoders_of, in_base
from mnemon.data import photos_tensor
from mnemon.evaluation import Encoders, EvalSettings, ScoreMatrix, matrix_from_rows, reference_features
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
    on_state: Callable[[int, int], None] | None = None,
    on_images: Callable[[int, str | None, Tensor], None] | None = None,
) -> ScoreMatrix:
    """Fill the score matrix R[t, j]: measure every state of the library that has no row yet, or all of them `again`.

    Args:
        on_state: hears the state being measured and the number of states.
        on_images: hears the state, the concept (None for general prompts) and the images.

    Returns:
        The matrix of identity alignment; `library.rows()` holds all scores.
    """
    newest = Library.open(library)
    found = base_of(newest, base)
    measure = encoders or encoders_of(found)
    with newest.lock():
        rows = newest.rows()
        for state in range(1, newest.state + 1):
            if on_state is not None:
                on_state(state, newest.state)
            if again or state not in rows:
                past = Library.open(library, at=state)
                newest.write_row(state, row_of(past, found, measure, score, _at(on_images, state)))
    return matrix_from_rows(newest.rows(), "identity_alignment")


def row_of(
    library: Library,
    base: Base,
    encoders: Encoders,
    score: EvalSettings | None = None,
    on_images: OnImages | None = None,
) -> dict[str, Any]:
    """The row of the score matrix at the library's state."""
    known = references_of(library)
    with in_base(library, base) as composed:
        return evaluate_composed(composed, known, encoders, score, on_images).to_json()


def references_of(library: Library) -> dict[str, dict[str, Tensor]]:
    """Concept -> features of its reference images, for those that have some."""
    references = {name: library.references(name) for name in library.names()}
    return {name: features for name, features in references.items() if features}


def single_lora_identity_ratio(
    base: str | Base, seeds: Sequence[int] = (901, 902, 903, 904), on_step: OnStep | None = None
) -> float:
    """How well the base can be taught at all: identity alignment of one concept learned by `lora` alone, over what
    renders of the concept reach against one another; the mean over concepts of the world, on images not trained on.
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


def _at(on_images: Callable[[int, str | None, Tensor], None] | None, state: int) -> OnImages | None:
    return None if on_images is None else lambda name, images: on_images(state, name, images)
