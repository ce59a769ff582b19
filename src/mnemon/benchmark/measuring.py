"""What a run costs in memory, and on what it was made."""

import ctypes
import os
import platform
import resource
import sys
import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from mnemon.sampling.precision import scoring_dtype

PACKAGES = ("mnemon", "torch", "diffusers", "transformers", "accelerate", "numpy")
_EVERY = 0.02  # seconds between looks at the memory
_STATM = Path("/proc/self/statm")


class PeakMemory:
    """The most memory that was in use within the block, of the GPU if the device is one, else of the whole process; it
    is looked at fifty times a second.

    Attributes:
        start, peak: bytes at the beginning and at most. Without a GPU and without /proc both are the process's peak.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ended = threading.Event()
        self.start = self.peak = 0

    def __enter__(self) -> "PeakMemory":
        _give_back()
        self.start = self.peak = _in_use(self._device)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, _in_use(self._device))


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
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _in_use(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()  # resident pages
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
