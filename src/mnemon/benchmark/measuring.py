"""What a run costs in memory and time, and on what it was made."""

import ctypes
import os
import platform
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import psutil
import torch

from mnemon.sampling.precision import scoring_dtype

PACKAGES = ("mnemon", "torch", "diffusers", "transformers", "accelerate", "numpy")
_EVERY = 0.02  # seconds between looks at the memory


class PeakMemory:
    """The most memory that was in use within the block: of the GPU as torch counts it if the device is one, else of the
    whole process, looked at fifty times a second. Blocks may be nested.

    Attributes:
        start, peak: bytes at the beginning, and at most so far.
    """

    _open: ClassVar[list["PeakMemory"]] = []

    def __init__(self, device: torch.device) -> None:
        self._device, self._process = device, psutil.Process()
        self._ended = threading.Event()
        self.start = self._most = 0

    @property
    def peak(self) -> int:
        if self in self._open:
            self._look()
        return self._most

    def __enter__(self) -> "PeakMemory":
        for outer in self._open:
            outer._look()  # torch has one peak for all blocks, and forgets it now
        self._open.append(self)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _give_back()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        self._look()
        self.start = self._most
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._look()
        self._open.remove(self)
        self._ended.set()
        if self._device.type != "cuda":
            self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        on_gpu = self._device.type == "cuda"
        now = torch.cuda.max_memory_allocated(self._device) if on_gpu else self._process.memory_info().rss
        self._most = max(self._most, now)


class StepClock:
    """How long the steps took that were done before a kill, if they were like those done since."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._steps = 0

    def tick(self, steps: int) -> None:
        self._times.append(time.monotonic())
        self._steps = steps

    @property
    def missed(self) -> float:
        seen = len(self._times)
        return (self._times[-1] - self._times[0]) / (seen - 1) * (self._steps - seen) if seen > 1 else 0.0


def parameter_count(parameter_groups: list[dict[str, Any]]) -> int:
    """Numbers that an optimiser with these groups changes."""
    return sum({id(one): one.numel() for group in parameter_groups for one in group["params"]}.values())


def package_versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Where numbers were measured."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "scores drawn in": str(scoring_dtype(device)).removeprefix("torch."),
    }


def _give_back() -> None:
    """Return memory that is free but still ours to the system, where that can be asked for (glibc): else what the block
    takes from it again would not show."""
    with suppress(AttributeError, OSError, TypeError):  # TypeError: Windows
        ctypes.CDLL(None).malloc_trim(0)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
