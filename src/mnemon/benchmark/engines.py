"""Where jobs run: in this process, in worker processes of this machine, or on a Ray cluster; the same jobs everywhere.

A job writes what it does and how it ended to its own folder, so an engine has to start it, to see that its worker
lives, and to pass its progress on. What a job began in a worker that died is gone on with in the next.
"""

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from mnemon.benchmark.running import OnProgress
from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import Progress, RunFolder

TRIES = 3  # of a job whose worker dies
ENGINES = ("here", "processes", "ray")
_EVERY = 1.0  # seconds between looks at the jobs


class AnyJob(Protocol):
    """What is known of every job: its folder, and what to call it."""

    @property
    def folder(self) -> Path: ...
    @property
    def title(self) -> str: ...


Job = TypeVar("Job", bound=AnyJob)
RunJob = Callable[[Job, OnProgress], None]
"""Does a job; any function of a module that workers can import."""
OnJobProgress = Callable[[Job, Progress | None], None]
"""Called with how far a job is, and None when it has ended."""


class Engine(Protocol):
    def run(self, jobs: Sequence[Job], run_job: RunJob[Job], on_progress: OnJobProgress[Job]) -> None:
        """Do all jobs. Returns when each has ended, well or not; the jobs' folders say how."""


class SerialExecutor:
    """One job after another, in this process."""

    def run(self, jobs: Sequence[Job], run_job: RunJob[Job], on_progress: OnJobProgress[Job]) -> None:
        for job in jobs:
            run_job(job, partial(on_progress, job))
            on_progress(job, None)


class ProcessExecutor:
    """`workers` jobs at a time, each in a process of its own; the cores are shared out among them."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise MnemonError(f"{workers} worker processes cannot do any job: ask for 1 or more.")
        self.workers = workers
        self._context = _context()

    def run(self, jobs: Sequence[Job], run_job: RunJob[Job], on_progress: OnJobProgress[Job]) -> None:
        waiting, running, tries = deque(jobs), dict[Path, tuple[Job, BaseProcess]](), Counter[Path]()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    job = waiting.popleft()
                    tries[job.folder] += 1
                    running[job.folder] = job, self._start(job, run_job)
                wait([process.sentinel for _, process in running.values()], timeout=_EVERY)
                for folder, (job, process) in list(running.items()):
                    if process.is_alive():
                        _pass_on(job, on_progress)
                        continue
                    del running[folder]
                    if process.exitcode != 0 and tries[folder] < TRIES:
                        waiting.appendleft(job)
                        continue
                    code = process.exitcode
                    _ended(job, on_progress, f"The worker died {TRIES} times, with code {code}." if code else None)
        finally:
            for _, process in running.values():
                process.terminate()
                process.join()

    def _start(self, job: Job, run_job: RunJob[Job]) -> BaseProcess:
        threads = max(torch.get_num_threads() // self.workers, 1)
        process = self._context.Process(target=_in_worker, args=(job, run_job, threads), name=job.title)
        process.start()
        return process


class RayExecutor:
    """Tasks of a Ray cluster, `cores` for each, and a GPU where the cluster has some.

    mnemon must be installed on its machines, and the results folder be one that all of them see. A Ray that this
    process has started or joined is used; else `address` is joined: "auto" for the cluster of this machine,
    "ray://host:port" for another, None to start one here.
    """

    def __init__(self, address: str | None = None, cores: int = 1) -> None:
        self.address, self.cores = address, cores

    def run(self, jobs: Sequence[Job], run_job: RunJob[Job], on_progress: OnJobProgress[Job]) -> None:
        ray = _imported_ray()
        joined = not ray.is_initialized()
        if joined:
            _join(ray, self.address)
        try:
            self._run(ray, jobs, run_job, on_progress)
        finally:
            if joined:
                ray.shutdown()

    def _run(self, ray: Any, jobs: Sequence[Job], run_job: RunJob[Job], on_progress: OnJobProgress[Job]) -> None:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=self.cores, num_gpus=gpus, max_retries=TRIES - 1)(_in_task)
        pending = {task.remote(job, run_job, self.cores): job for job in jobs}
        while pending:
            done, _ = ray.wait(list(pending), timeout=_EVERY)
            for reference in done:
                job, error = pending.pop(reference), None
                try:
                    ray.get(reference)
                except ray.exceptions.RayTaskError as raised:  # e.g. mnemon is not installed there
                    error = str(raised).strip().splitlines()[-1]
                except ray.exceptions.RayError as lost:
                    error = f"The worker died {TRIES} times: {str(lost).strip().splitlines()[0]}"
                _ended(job, on_progress, error)
            for job in pending.values():
                _pass_on(job, on_progress)


def engine_named(name: str, workers: int = 1, address: str | None = None) -> Engine:
    """One of `ENGINES`; `workers` are processes, or cores for each job on Ray.

    Raises:
        MnemonError: there is no such engine, or it is not installed.
    """
    if name == "here":
        return SerialExecutor()
    if name == "processes":
        return ProcessExecutor(workers)
    if name == "ray":
        _imported_ray()
        return RayExecutor(address, workers)
    raise MnemonError(f"There is no engine '{name}': choose from {', '.join(ENGINES)}.")


def _context() -> SpawnContext | ForkServerContext:
    """Not "fork": that would share this process's threads and locks. A fork server has imported all before it forks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mnemon.benchmark.runner"])
    return context


def _in_task(job: Job, run_job: RunJob[Job], cores: int) -> None:
    torch.set_num_threads(cores)
    run_job(job, _Written(job))


def _in_worker(job: Job, run_job: RunJob[Job], threads: int) -> None:
    """The process of one job. It ends with the one that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starting process ends its workers itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    run_job(job, _Written(job))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Written:
    """Progress for whoever looks into the job's folder, written at most once a second."""

    def __init__(self, job: AnyJob) -> None:
        self._folder, self._due = RunFolder(job.folder), threading.Event()
        self._due.set()

    def __call__(self, progress: Progress) -> None:
        if self._due.is_set():
            self._due.clear()
            self._folder.write_progress(progress)
            timer = threading.Timer(_EVERY, self._due.set)
            timer.daemon = True
            timer.start()


def _pass_on(job: Job, on_progress: OnJobProgress[Job]) -> None:
    progress = RunFolder(job.folder).progress()
    if progress is not None:
        on_progress(job, progress)


def _ended(job: Job, on_progress: OnJobProgress[Job], error: str | None) -> None:
    """What becomes of a job whose worker is gone; `error` if it did not come to an end by itself."""
    folder = RunFolder(job.folder)
    if error is not None:
        progress = folder.progress()
        folder.fail(error, progress.doing if progress else "starting")
    folder.end()
    on_progress(job, None)


def _join(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except ConnectionError as error:
        raise MnemonError(
            f"There is no Ray cluster at '{address}' that lets this process in ({error}): start one with `ray start "
            "--head`; if it asks for a token, set RAY_AUTH_MODE=token here."
        ) from None
    except Exception as error:  # Ray raises a plain one where its node does not start
        raise MnemonError(f"Ray did not start here: {error} Try again, or use --engine processes.") from error


def _imported_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MnemonError("The engine 'ray' needs Ray: install it with `pip install 'mnemon[cluster]'`.") from None
    return ray
