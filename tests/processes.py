"""Processes for tests to kill: forked from one that has imported everything, so that each is there in a moment."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import mnemon.benchmark.runner
import mnemon.cli
import mnemon.training.session  # noqa: F401 (children find it imported)

# Not "fork": the tests' own process has threads by the time it forks.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "tests.contract.table", "tests.library.fakes"])


def started(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int:
    """How the process ended: -9 if by SIGKILL."""
    process.join(120)
    assert process.exitcode is not None, "the process neither ended nor was killed"
    return process.exitcode


def die() -> None:
    """What a test lets this process do somewhere."""
    os.kill(os.getpid(), signal.SIGKILL)
