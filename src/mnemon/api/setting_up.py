"""A base and settings with nothing left open, planned so that they fit the GPU."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mnemon.api.opening import base_named, device_of, find_weights, method_for, method_named
from mnemon.library import Library, is_library
from mnemon.methods import method_from, method_with
from mnemon.methods.base import Method
from mnemon.models import Base, Weights
from mnemon.models.loading import find_base
from mnemon.models.transformer import TransformerBase
from mnemon.planning import GB, Choice, MemoryOptions, Plan, choose, read_configs, wishes
from mnemon.settings import settings_from_json
from mnemon.training import TrainingSettings

log = logging.getLogger("mnemon")
PLANNED = ("batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
"""Training settings that memory depends on."""


@dataclass(frozen=True)
class Setup:
    """What `learn` works with.

    Attributes:
        method: of a new library; for one that exists what was asked for, which has to agree with its own.
        planned: what was picked to fit a GPU, and what it takes; None where nothing was planned.
    """

    base: Base
    method: Method | str | None
    training: TrainingSettings
    planned: Choice | None = None


def set_up(
    library: str | Path,
    base: str | Base | None = None,
    *,
    method: str | Method | None = None,
    method_settings: Mapping[str, Any] | None = None,
    training: TrainingSettings | Mapping[str, Any] | None = None,
    weights: Weights | None = None,
    memory: float | None = None,
) -> Setup:
    """Open the base of a library and settle everything that was not said, by the base's profile.

    On a GPU, or with `memory`, it is planned first, from the configs alone: a line is logged that says what was picked.

    Args:
        base: as for `learn`; one that is open already is taken as it is, and nothing is planned.
        method, method_settings: of a new library; settings that are not given are the profile's.
        training: settings as a mapping leave the others to the profile; a `TrainingSettings` is taken as it is.
        weights: their precision; without, as the library was learned last, or by the profile.
        memory: of the GPU in GB; that of this machine's without.

    Raises:
        MnemonError: nothing fits the memory, or a setting or the base's name is wrong.
    """
    opened = Library.open(library) if is_library(library) else None
    given = training if isinstance(training, Mapping) else {}
    name = base or (opened.base_name if opened else "world")
    memory = _gpu_memory() if memory is None else memory
    if memory is None or isinstance(name, Base) or name == "world":
        found, choice = base_named(name, weights or find_weights(opened)), None
    else:
        configs = read_configs(str(find_base(name)[0]))
        planned = opened.method if opened else method_named(method, method_settings)
        values = vars(training) if isinstance(training, TrainingSettings) else given
        plan = Plan(configs, planned)
        choice = choose(plan, *wishes(plan, {**values, "weights": weights or find_weights(opened)}), memory)
        log.info("'%s' in %.0f GB: %s.", name, memory, choice)
        found = base_named(name, choice.options.weights)
        _apply(choice.options, found)
    chosen = method_for(method, method_settings, found) if opened is None else _asked(opened, method, method_settings)
    if isinstance(training, TrainingSettings):
        return Setup(found, chosen, training, choice)
    settings = settings_from_json(TrainingSettings, {**found.profile.training(), **given}, "The training")
    if choice is not None:
        own = {key: getattr(choice.options, key) for key in PLANNED}
        settings = replace(settings, **own)
    return Setup(found, chosen, settings, choice)


def _asked(library: Library, method: str | Method | None, settings: Mapping[str, Any] | None) -> Method | str | None:
    """The method that a library which exists was asked for."""
    if not settings or isinstance(method, Method):
        return method
    own = library.method
    return method_with(own, settings) if method in (None, own.name) else method_from(str(method), settings)


def _apply(options: MemoryOptions, base: Base) -> None:
    base.profile = replace(base.profile, images_at_once=options.images_at_once)
    if options.offload_text and isinstance(base, TransformerBase):
        base.offload_text_encoders()


def _gpu_memory() -> float | None:
    """Memory of the GPU in GB, if there is one."""
    if device_of() != "cuda":
        return None
    return float(torch.cuda.get_device_properties(0).total_memory) / GB
