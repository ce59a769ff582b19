"""Resuming after a kill: where the checkpoint of a run is, and which run it belongs to.

A run resumes from a checkpoint bit for bit, and only if everything that decides its outcome is the same. With other
settings, photos or earlier concepts it starts anew, and a warning says what differs. The checkpoint of the other run
stays: a folder has room for two. A finished run leaves its last checkpoint, so that a kill between training and the
commit costs nothing; after the commit the caller calls `discard_checkpoint`.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from mnemon.errors import MnemonError, WriteError
from mnemon.files import remove_unfinished
from mnemon.training.checkpoint import load_checkpoint, save_checkpoint
from mnemon.training.identity import differences

CHECKPOINTS = ("training.safetensors", "training-2.safetensors")
"""The files of a folder: of the run, and of one with other settings before it."""
LONGEST = 100
"""Characters of a folder's name."""
log = logging.getLogger("mnemon")


def run_folder(library: Path, names: Sequence[str]) -> Path:
    """Where a library keeps the checkpoints of a run that learns these concepts."""
    name = "+".join(sorted(names))
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return library / "training" / name


def kept_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder."""
    return [path for name in CHECKPOINTS if (path := folder / name).exists()]


def discard_checkpoint(folder: Path) -> None:
    """Remove a run's checkpoints, if there are any, and what a kill while one was written has left."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        remove_unfinished(folder)


class Checkpoints:
    """The checkpoint of one run; without a folder nothing is kept."""

    def __init__(
        self,
        folder: Path | None,
        identity: Mapping[str, str],
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        scaler: "torch.amp.GradScaler | None" = None,
    ) -> None:
        self._folder = folder
        self._path = None if folder is None else folder / CHECKPOINTS[0]
        self._identity = dict(identity)
        self._modules, self._optimizer, self._generator, self._scaler = modules, optimizer, generator, scaler
        self._written = time.monotonic()
        self._failed = False

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self._written

    def restore(self, steps: int) -> int:
        """Go back to where the run was; returns the steps done, 0 for a new run.

        Raises:
            MnemonError: the checkpoint is damaged, or has more than `steps` steps.
        """
        if self._folder is None or not self._found(self._folder):
            return 0
        assert self._path is not None
        try:
            facts = load_checkpoint(self._path, self._modules, self._optimizer, self._generator)
        except Exception as error:  # of any type: the bytes of a damaged file may say anything
            raise _damaged(self._path, error) from error
        if self._scaler is not None and isinstance(scaler := facts["scaler"], dict):
            self._scaler.load_state_dict(scaler)
        done = int(str(facts["step"]))
        if done > steps:
            raise MnemonError(
                f"The checkpoint {self._path} of this run has {done} steps done, and {steps} are asked for: "
                f"ask for {done} or more, or delete it to start the training anew."
            )
        return done

    def save(self, step: int) -> None:
        """Keep the run as it is after `step` steps. If that cannot be written, a warning says so, once."""
        if self._path is None:
            return
        scaler = None if self._scaler is None else self._scaler.state_dict()
        facts = {"step": step, "identity": self._identity, "scaler": scaler}
        self._written = time.monotonic()
        try:
            save_checkpoint(self._path, self._modules, self._optimizer, self._generator, facts)
        except WriteError as error:
            if not self._failed:
                log.warning("%s The training goes on, but could not be resumed from step %d.", error, step)
            self._failed = True
        else:
            self._failed = False

    def _found(self, folder: Path) -> bool:
        """Whether there is a checkpoint of this run. `_path` is then the one, or else where a new one goes."""
        others = {path: _changes(path, self._identity) for path in kept_checkpoints(folder)}
        for path, changes in others.items():
            if not changes:
                self._path = path
                return True
        for path, changes in others.items():
            log.warning("%s is of another run: %s. The training starts anew.", path, "; ".join(changes))
        free = [path for name in CHECKPOINTS if (path := folder / name) not in others]
        self._path = free[0] if free else min(others, key=lambda path: path.stat().st_mtime)
        return False


def _changes(path: Path, identity: Mapping[str, str]) -> list[str]:
    try:
        with safe_open(str(path), framework="pt") as file:
            stored: dict[str, str] = json.loads(file.metadata()["facts"])["identity"]
            return differences(dict(stored), identity)
    except Exception as error:  # as above
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> MnemonError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MnemonError(f"The checkpoint {path} is damaged ({reason}): delete it to start the training anew.")
