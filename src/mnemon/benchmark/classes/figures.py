"""The figures of a comparison of classifiers, from the records of its runs."""

from mnemon.classification.evaluating import accuracy_figures
from mnemon.evaluation.figures import MATRIX_FIGURES, Better, Figure
from mnemon.evaluation.numbers import Numbers
from mnemon.evaluation.run_record import RunRecord

_LAST = ("a_n", "a_n_class_weighted")
"""What can be said of a method that learns all at once."""


def _of_matrix(name: str, title: str, better: Better = "high") -> Figure:
    known = MATRIX_FIGURES[name]
    return Figure(title, known.formula, known.meaning, better, "percent")


FIGURES: dict[str, Figure] = {
    "a_n": _of_matrix("final_average", "A_N"),
    "a_n_class_weighted": Figure(
        "A_N, by images", "right / all test images after task N",
        "LAMDA-PILOT, InfLoRA: every image counts the same. Equal to A_N where all tasks have as many test images.",
        "high", "percent",
    ),
    "average_incremental": Figure(
        "Average incremental", "(1/N) Σ_t (1/t) Σ_{j≤t} R[t, j]",
        "The mean over tasks t of the task mean after task t.", "high", "percent",
    ),
    "average_incremental_class_weighted": Figure(
        "Average incremental, by images", "(1/N) Σ_t right / all test images after task t",
        "LAMDA-PILOT, InfLoRA.", "high", "percent",
    ),
    "f_n": _of_matrix("forgetting_one_step", "F_N", "low"),
    "forgetting_from_best": _of_matrix("forgetting_from_best", "Forgetting, best − last", "low"),
    "forgetting_from_first": _of_matrix("forgetting_from_first", "Forgetting, first − last", "low"),
    "learning_accuracy": _of_matrix("learning_accuracy", "Learning accuracy"),
    "parameters": Figure(
        "Trained", "numbers that the optimiser changes for the first task",
        "Without the rows of the head, which are the same for every method.", "low", "count",
    ),
    "stored_parameters": Figure(
        "Stored", "numbers that are kept of a task, mean over tasks", "With its rows of the head.", "low", "count",
    ),
    "stored_bytes": Figure("Stored bytes", "bytes in the library, all tasks", "With all past states.", "low", "bytes"),
    "seconds_per_task": Figure("Seconds a task", "seconds of training, mean over tasks", "", "low", "seconds"),
    "query_cache_bytes": Figure(
        "Query cache", "bytes of the frozen features of a task's training images",
        "Prompt methods read each image once in the frozen backbone, not once per epoch.", "low", "bytes",
    ),
    "peak_memory_bytes": Figure(
        "Memory", "the most of the process, or of the GPU, in a run", "With interpreter and libraries.", "low", "bytes",
    ),
}  # fmt: skip
ACCURACY = ("a_n", "average_incremental", "f_n", "forgetting_from_best", "forgetting_from_first", "learning_accuracy")
OTHERWISE = ("a_n_class_weighted", "average_incremental_class_weighted")
COST = (
    "parameters", "stored_parameters", "stored_bytes", "seconds_per_task", "query_cache_bytes", "peak_memory_bytes",
)  # fmt: skip


def numbers_of(record: RunRecord) -> Numbers:
    """Every figure of a finished run; None where there is nothing to take a mean of."""
    accuracies = accuracy_figures(record.rows)
    if len(record.rows) < len(record.names):
        accuracies = {name: value if name in _LAST else None for name, value in accuracies.items()}
    costs, seconds = record.costs, record.costs["seconds"].values()
    known: Numbers = {
        **accuracies,
        **{name: costs.get(name) for name in COST},
        "stored_bytes": sum(costs["bytes"].values()),
        "seconds_per_task": sum(seconds) / len(record.names),
    }
    return {name: known[name] for name in FIGURES}
