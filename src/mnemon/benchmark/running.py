"""What the runs of all kinds of jobs share: what they note of themselves, and how they end."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from mnemon.benchmark.measuring import machine_facts, package_versions
from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import Progress, RunFolder

OnProgress = Callable[[Progress], None]


class JobRun(Protocol):
    """The state of one job; `doing` says in words what it does now."""

    doing: str

    def complete(self) -> None: ...


def complete(folder: RunFolder, begin: Callable[[], JobRun], opening: str) -> None:
    """Do a job, or what is left of it. Any error is written to its folder instead of raised.

    Args:
        opening: what `begin` does, in words, for its errors.
    """
    run: JobRun | None = None
    try:
        run = begin()
        run.complete()
    except Exception as error:
        text = str(error) if isinstance(error, MnemonError) else f"{type(error).__name__}: {error}"
        folder.fail(text, run.doing if run else opening, error)


def run_facts(departures: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What job.json says beside what was asked: settings of one's own, versions and machine."""
    own = {"set": departures} if departures else {}
    return {**own, "versions": package_versions(), "machine": machine_facts(device)}
