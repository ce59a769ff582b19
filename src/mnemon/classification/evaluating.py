"""Accuracies of every revision on test images, and the figures that follow from them.

R[t, j] is the accuracy on the classes of task j after task t, in 0..1: the class with the largest logit among all
learned so far, no task given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mnemon.classification.backbone import Backbone
from mnemon.classification.library import ClassLibrary
from mnemon.classification.methods import ClassifierMethod, TrainedTask
from mnemon.classification.predicting import Classifier, frozen_features
from mnemon.classification.reading import check_apart
from mnemon.classification.tasks import Example
from mnemon.errors import MnemonError
from mnemon.evaluation.matrix import (
    final_average,
    forgetting_from_best,
    forgetting_from_first,
    forgetting_one_step,
    learning_accuracy,
    matrix_from_rows,
)

Rows = Mapping[int, Mapping[str, Any]]
"""By revision {"concepts": {task: {"accuracy", "correct", "images"}}}."""


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    rows: as the library keeps them.
    figures: by name, as `accuracy_figures` says.
    unknown: classes with test images that were not learned; they are in no figure.
    """

    rows: Rows
    figures: dict[str, float | None]
    unknown: tuple[str, ...]


def evaluate_classes(library: Path | str, test: Sequence[Example], backbone: Backbone) -> Evaluation:
    """Measure every revision of the library on the same test images, and keep the rows with it.

    Raises:
        MnemonError: a test image was trained on, a class that was learned has no test image, or the backbone is
            another one.
    """
    newest = ClassLibrary.open(library)
    newest.check_backbone(backbone)
    check_apart(newest.training_images(), test)
    tasks = newest.classes()
    given = {one.label for one in test}
    if missing := [label for label in tasks if label not in given]:
        raise MnemonError(f"There are no test images of the class '{missing[0]}': add some to the test folder.")
    known = [one for one in test if one.label in tasks]
    queries = None
    if newest.method.uses_queries:
        queries = frozen_features(backbone, newest.method, [one.image for one in known])
    rows = {}
    for revision in range(1, newest.revision + 1):
        learned = ClassLibrary.open(library, revision).learned()
        rows[revision] = accuracy_row(backbone, newest.method, learned, tasks, known, queries)
        newest.write_row(revision, rows[revision])
    return Evaluation(rows, accuracy_figures(rows), tuple(sorted(given - tasks.keys())))


def accuracy_row(
    backbone: Backbone,
    method: ClassifierMethod,
    learned: Sequence[TrainedTask],
    tasks: Mapping[str, str],
    test: Sequence[Example],
    queries: Tensor | None,
) -> dict[str, Any]:
    """The row of what was `learned`.

    Args:
        tasks: class -> the task it counts for.
        test: images; those of classes that were not learned are passed over.
        queries: features of `test` in the frozen backbone, (images, width), for methods that use them.
    """
    known = {label for task in learned for label in task.classes}
    places = [place for place, one in enumerate(test) if one.label in known]
    chosen = None if queries is None else queries[places]
    with Classifier.opened(backbone, method, learned) as classifier:
        best = classifier.predict([test[place].image for place in places], chosen).argmax(1).tolist()
    counts = {tasks[label]: [0, 0] for label in classifier.classes}
    for place, found in zip(places, best, strict=True):
        count = counts[tasks[test[place].label]]
        count[0] += classifier.classes[found] == test[place].label
        count[1] += 1
    return {"concepts": {name: {"accuracy": c / n, "correct": c, "images": n} for name, (c, n) in counts.items()}}


def accuracy_figures(rows: Rows) -> dict[str, float | None]:
    """From the rows, in 0..1:

    | name | formula |
    |---|---|
    | a_n | final average, task mean: mean_j R[N, j] (CODA-Prompt) |
    | a_n_class_weighted | correct / all test images after task N (PILOT, InfLoRA) |
    | average_incremental | mean over t of the task mean after task t |
    | average_incremental_class_weighted | mean over t of correct / all after task t |
    | f_n | mean over t of mean over j < t of R[t-1, j] - R[t, j] (CODA-Prompt, C-LoRA, STAMINA) |
    | forgetting_from_best | mean over j < N of max_t R[t, j] - R[N, j] (PILOT, mammoth) |
    | forgetting_from_first | mean over j < N of R[j, j] - R[N, j] (Avalanche) |
    | learning_accuracy | mean_j R[j, j] |

    None where there is nothing to take a mean of, as in the forgetting of one task.
    """
    matrix = matrix_from_rows(rows, "accuracy")
    cells = [list(rows[revision]["concepts"].values()) for revision in sorted(rows)]
    by_task = [np.mean([cell["accuracy"] for cell in row]) for row in cells]
    weighted = [sum(cell["correct"] for cell in row) / sum(cell["images"] for cell in row) for row in cells]
    numbers = {
        "a_n": final_average(matrix),
        "a_n_class_weighted": weighted[-1] if weighted else np.nan,
        "average_incremental": np.mean(by_task) if by_task else np.nan,
        "average_incremental_class_weighted": np.mean(weighted) if weighted else np.nan,
        "f_n": forgetting_one_step(matrix),
        "forgetting_from_best": forgetting_from_best(matrix),
        "forgetting_from_first": forgetting_from_first(matrix),
        "learning_accuracy": learning_accuracy(matrix),
    }
    return {name: None if np.isnan(value) else float(value) for name, value in numbers.items()}
