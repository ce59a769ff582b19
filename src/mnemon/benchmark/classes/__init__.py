"""Every method of continual classification on the same backbone, classes and orders."""

from mnemon.benchmark.bench import BenchResult, run_all
from mnemon.benchmark.classes.jobs import ClassJob, plan_classes
from mnemon.benchmark.classes.page import write
from mnemon.benchmark.classes.protocols import PROTOCOLS, classifier_by
from mnemon.benchmark.classes.runner import run_class_job
from mnemon.benchmark.classes.sequences import SHIPPED, ClassSequence, open_classes
from mnemon.benchmark.engines import Engine, OnJobProgress

__all__ = ["PROTOCOLS", "SHIPPED", "ClassJob", "ClassSequence", "classifier_by", "open_classes", "plan_classes",
           "run_class_bench"]  # fmt: skip


def run_class_bench(
    jobs: list[ClassJob], engine: Engine, on_progress: OnJobProgress[ClassJob] = lambda job, progress: None
) -> BenchResult:
    """Do the jobs that are not done yet, and write the report.

    Raises:
        MnemonError: somebody else is writing to the results folder, or it holds runs that do not compare with these.
    """
    return run_all(jobs, engine, run_class_job, write, on_progress)
