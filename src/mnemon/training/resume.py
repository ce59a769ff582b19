"""Resuming after a kill: where the checkpoint of a run is, and which run it belongs to.

A run resumes from a checkpoint bit for bit, and only if everything that decides its outcome is the same. With other
settings, photos or earlier concepts it starts anew, logs a warning that says what changed, and replaces the checkpoint
in time. A finished run leaves its last checkpoint, so that a kill between training and the commit costs nothing; after
the commit the caller calls `discard_checkpoint`.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mnemon.adapters import save_deltas
from mnemon.errors import MnemonError
from mnemon.methods import method_settings
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base
from mnemon.tensor_files import tensors_sha256
from mnemon.training.checkpoint import load_checkpoint, save_checkpoint
from mnemon.training.settings import TrainingSettings
from mnemon.training.tasks import ConceptTask

CHECKPOINT = "training.safetensors"
CHECKPOINT_VERSION = "2"
"""Raised with what a checkpoint holds."""
log = logging.getLogger("mnemon")


def discard_checkpoint(folder: Path) -> None:
    """Remove a run's checkpoint, if there is one, and what a kill while it was written has left."""
    for name in (CHECKPOINT, f"{CHECKPOINT}.part"):
        (folder / name).unlink(missing_ok=True)


def run_identity(
    base: Base,
    method: Method,
    tasks: Sequence[ConceptTask],
    earlier: Sequence[TrainedConcept],
    settings: TrainingSettings,
) -> dict[str, str]:
    """Everything that decides the outcome of a run, under names that an explanation can use."""
    parts = [part for task in tasks for part in (task.examples, task.prior)] + [tasks[0].calibration]
    examples = [part for part in parts if part is not None]
    images = {str(index): part.latents for index, part in enumerate(examples)}
    return {
        "base": base.fingerprint,
        "method": json.dumps([method.name, method_settings(method)]),
        "concept": json.dumps([[task.name, task.class_noun] for task in tasks]),
        "photos or prompts": _hash(images, [list(part.prompts) for part in examples]),
        "earlier concepts": " ".join(
            _hash(save_deltas(one.deltas) | dict(one.tokens) | dict(one.extra), one.name) for one in earlier
        ),
        "training settings": json.dumps(settings.decisive()),
        "version of mnemon": CHECKPOINT_VERSION,
    }


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
        self._path = None if folder is None else folder / CHECKPOINT
        self._identity = dict(identity)
        self._modules, self._optimizer, self._generator, self._scaler = modules, optimizer, generator, scaler
        self._written = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self._written

    def restore(self) -> int:
        """Go back to where the run was; returns the steps done, 0 for a new run.

        Raises:
            MnemonError: the checkpoint is damaged.
        """
        if self._path is None or not self._path.exists() or not self._belongs(self._path):
            return 0
        try:
            facts = load_checkpoint(self._path, self._modules, self._optimizer, self._generator)
        except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise _damaged(self._path) from error
        if self._scaler is not None and isinstance(scaler := facts["scaler"], dict):
            self._scaler.load_state_dict(scaler)
        return int(str(facts["step"]))

    def save(self, step: int) -> None:
        """Keep the run as it is after `step` steps."""
        if self._path is not None:
            scaler = None if self._scaler is None else self._scaler.state_dict()
            facts = {"step": step, "identity": self._identity, "scaler": scaler}
            save_checkpoint(self._path, self._modules, self._optimizer, self._generator, facts)
            self._written = time.monotonic()

    def _belongs(self, path: Path) -> bool:
        other = _identity_of(path)
        changed = [part for part, value in self._identity.items() if other.get(part) != value]
        if changed:
            log.warning("%s is of a run with another %s: training starts anew.", path, ", another ".join(changed))
        return not changed


def _identity_of(path: Path) -> dict[str, str]:
    try:
        with safe_open(str(path), framework="pt") as file:
            identity: dict[str, str] = json.loads(file.metadata()["facts"])["identity"]
            return identity
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> MnemonError:
    return MnemonError(f"The checkpoint {path} is damaged: delete it to start the training anew.")


def _hash(tensors: Mapping[str, Tensor], words: object) -> str:
    return tensors_sha256(tensors, head=json.dumps(words), end="")
