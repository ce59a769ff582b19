"""Snapshots of running work as safetensors: modules, optimiser, random state. No pickle is written or read."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


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
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    write_safetensors(path, tensors, {"facts": json.dumps(facts)})


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> dict[str, object]:
    """Restore a snapshot in place and return its facts."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        facts: dict[str, object] = json.loads(file.metadata()["facts"])
    for name, module in modules.items():
        prefix = f"module.{name}."
        module.load_state_dict({key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, field = key.split(".")
            state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return facts


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` atomically: aside, flushed to disk, renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    packed = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    # None, not {}: with an empty dictionary and no tensors, safetensors 0.8 writes a header that it cannot read.
    save_file(packed, str(aside), metadata=dict(metadata) if metadata else None)
    _settle(aside, path)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _settle(aside, path)


def _settle(aside: Path, path: Path) -> None:
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
