"""A benchmark: all jobs by an engine, and then the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnemon.benchmark.engines import Engine, OnJobProgress
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


def run_bench(
    jobs: Sequence[Job], engine: Engine, on_progress: OnJobProgress = lambda job, progress: None
) -> BenchResult:
    """Do the jobs that are not done yet; those that failed before are tried again. All are for one results folder.

    Raises:
        MnemonError: somebody else is writing to the results folder, or it holds runs that do not compare with these.
    """
    out = jobs[0].out
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out / "lock"):
        count = len(jobs[0].opened().concepts)
        open_jobs = []
        for job in jobs:
            if RunFolder(job.folder).finished(count, job.alone):
                on_progress(job, Progress(count, count, "done before"))
                on_progress(job, None)
            else:
                open_jobs.append(job)
        engine.run(open_jobs, run_job, on_progress)
        page = report.write(out)
    failures = {job.title: RunFolder(job.folder).failure() for job in jobs}
    failed = {title: f"{failure.where}: {failure.error}" for title, failure in failures.items() if failure is not None}
    return BenchResult(len(jobs), len(jobs) - len(open_jobs), failed, page)
