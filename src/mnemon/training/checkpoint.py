"""Modules, an optimiser and the random state of a run in one safetensors file. No pickle is written or read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mnemon.tensor_files import tensors_sha256, write_safetensors

SEAL = "seal"

NUMBERS = "optimizer"
"""Among the facts: what optimisers keep as plain numbers, by parameter and by group, which JSON holds exactly."""


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    facts: Mapping[str, object],
) -> None:
    """Write everything a run needs to go on bit for bit; either the whole new file or the old one is there after."""
    tensors: dict[str, Tensor] = {"generator": generator.get_state()}
    for name, module in modules.items():
        tensors |= {f"module.{name}.{key}": value for key, value in module.state_dict().items()}
    numbers: dict[str, dict[str, object]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": one for key, one in state.items() if isinstance(one, Tensor)}
        numbers[str(index)] = {key: one for key, one in state.items() if isinstance(one, int | float)}
    groups = [
        {key: value for key, value in group.items() if isinstance(value, int | float)}
        for group in optimizer.state_dict()["param_groups"]
    ]
    said = {**facts, NUMBERS: {"state": numbers, "groups": groups}}
    seal = tensors_sha256(tensors, head=json.dumps(said))
    write_safetensors(path, tensors, {"facts": json.dumps({**said, SEAL: seal})})


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> dict[str, object]:
    """Restore a checkpoint in place and return its facts; one of before has all of an optimiser's state as tensors.

    Raises:
        ValueError: the file was changed. One that an older version wrote does not say.
    """
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        facts: dict[str, object] = json.loads(file.metadata()["facts"])
    written = facts.pop(SEAL, None)
    if written not in (None, found := tensors_sha256(tensors, head=json.dumps(facts))):
        raise ValueError(f"its content has the checksum {found[:12]}, where {str(written)[:12]} was written")
    for name, module in modules.items():
        prefix = f"module.{name}."
        module.load_state_dict({key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)})
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, field = key.split(".")
            state.setdefault(int(index), {})[field] = tensor
    numbers: Any = facts.get(NUMBERS, {"state": {}, "groups": []})
    for index, own in numbers["state"].items():
        state.setdefault(int(index), {}).update(own)
    groups = optimizer.state_dict()["param_groups"]
    for group, own in zip(groups, numbers["groups"], strict=False):
        group.update(own)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    generator.set_state(tensors["generator"])
    return facts
