"""What a training run is: every fact that decides its outcome, by name, and how the facts of two runs differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mnemon.adapters import save_deltas
from mnemon.methods import method_settings
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base
from mnemon.tensor_files import tensors_sha256
from mnemon.training.examples import Examples
from mnemon.training.settings import TrainingSettings
from mnemon.training.tasks import ConceptTask

VERSION = "3"
"""Raised with what a checkpoint holds."""
FORMAT = "format of checkpoints"
METHOD = "method"
STEPS = "steps"
EARLY_STOPPING = "early stopping"
SHOWN = 60
"""The longest value that a message shows."""


def run_identity(
    base: Base,
    method: Method,
    tasks: Sequence[ConceptTask],
    earlier: Sequence[TrainedConcept],
    settings: TrainingSettings,
) -> dict[str, str]:
    """Everything that decides the outcome of a run, by names that a person knows.

    The number of steps is none of it where no step depends on how many follow: such a run may go on for longer.
    """
    facts: dict[str, Any] = {FORMAT: VERSION, "base": base.fingerprint, METHOD: method.name}
    facts |= {f"{method.name}.{name}": value for name, value in method_settings(method).items()}
    facts |= settings.decisive()
    for name in (STEPS, "batch_size"):
        facts[name] = getattr(method if facts[name] is None else settings, name)
        del facts[f"{method.name}.{name}"]
    if not method.follows_progress and settings.lr_scheduler == "constant":
        del facts[STEPS]
    for task in tasks:
        facts[f"class noun of {task.name}"] = task.class_noun
        facts |= dict(_images(f"of {task.name}", task.examples)) | dict(_images(f"before {task.name}", task.prior))
    facts |= dict(_images("for calibration", tasks[0].calibration))
    if not method.independent:
        facts |= {f"earlier concept {one.name}": _concept_hash(one) for one in earlier}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def differences(stored: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """Each fact that differs, as "seed 1 then, 2 now"; of runs of different kinds the one that says so. A run that is
    not stopped early may go on from one that was; only one of the two may have its number of steps as a fact."""
    names = {**stored, **given}.keys() - ({EARLY_STOPPING} - given.keys()) - ({STEPS} - (stored.keys() & given.keys()))
    changed = sorted(name for name in names if stored.get(name) != given.get(name))
    if kinds := [name for name in (FORMAT, METHOD) if name in changed]:
        changed = kinds[:1]
    return [f"{name} {_shown(stored.get(name))} then, {_shown(given.get(name))} now" for name in changed]


def _images(what: str, examples: Examples | None) -> Iterator[tuple[str, str]]:
    """Images, masks and prompts apart: a changed caption is no changed photo."""
    if examples is not None:
        sha256 = tensors_sha256({"latents": examples.latents}, end="")
        yield f"images {what}", f"{len(examples.prompts)} ({sha256[:12]})"
        if examples.masks is not None:
            yield f"masks {what}", tensors_sha256({"masks": examples.masks}, end="")[:12]
        yield f"prompts {what}", tensors_sha256({}, head=json.dumps(list(examples.prompts)))[:12]


def _concept_hash(one: TrainedConcept) -> str:
    return tensors_sha256(save_deltas(one.deltas) | dict(one.tokens) | dict(one.extra), head=one.name, end="")[:12]


def _shown(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= SHOWN else f"{value[:SHOWN]}..."
