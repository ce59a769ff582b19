"""A benchmark: all jobs by an engine, and then the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from mnemon.benchmark.engines import AnyJob, Engine, OnJobProgress, RunJob
from mnemon.benchmark.jobs import Job
from mnemon.benchmark.runner import run_job
from mnemon.evaluation.run_folder import Progress, RunFolder
from mnemon.library.lock import exclusive
from mnemon.report import benchmark_page as report


@dataclass(frozen=True)
class BenchResult:
    """How a benchmark ended: its jobs, how many of them were done before, of those that failed why, and the report."""

    jobs: int
    before: int
    failed: dict[str, str]
    page: Path


class BenchJob(AnyJob, Protocol):
    """A job of a results folder: whether it is done, and of how many parts."""

    @property
    def out(self) -> Path: ...
    @property
    def finished(self) -> bool: ...
    @property
    def count(self) -> int: ...


Bench = TypeVar("Bench", bound=BenchJob)


def run_bench(
    jobs: Sequence[Job], engine: Engine, on_progress: OnJobProgress[Job] = lambda job, progress: None
) -> BenchResult:
    """Do the jobs that are not done yet; those that failed before are tried again. All are for one results folder.

    Raises:
        MnemonError: somebody else is writing to the results folder, or it holds runs that do not compare with these.
    """
    return run_all(jobs, engine, run_job, report.write, on_progress)


def run_all(
    jobs: Sequence[Bench],
    engine: Engine,
    run_job: RunJob[Bench],
    write: Callable[[Path], Path],
    on_progress: OnJobProgress[Bench],
) -> BenchResult:
    """As `run_bench`, of jobs that `run_job` does and whose report `write` writes."""
    out = jobs[0].out
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out / "lock"):
        open_jobs = []
        for job in jobs:
            if job.finished:
                on_progress(job, Progress(job.count, job.count, "done before"))
                on_progress(job, None)
            else:
                open_jobs.append(job)
        engine.run(open_jobs, run_job, on_progress)
        page = write(out)
    failures = {job.title: RunFolder(job.folder).failure() for job in jobs}
    failed = {title: f"{failure.where}: {failure.error}" for title, failure in failures.items() if failure is not None}
    return BenchResult(len(jobs), len(jobs) - len(open_jobs), failed, page)
