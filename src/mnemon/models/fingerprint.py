"""One hash that says which weights a base has; a library refuses to open on others."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

WEIGHTS = re.compile(r"(model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors")
"""The files that are loaded by default; variants such as `model.fp16.safetensors` lie beside them unused."""


def weight_files(folder: Path, component: str) -> list[Path]:
    """The safetensors files of one part of a pipeline folder, shards in order."""
    return sorted(path for path in (folder / component).glob("*.safetensors") if WEIGHTS.fullmatch(path.name))


def fingerprint_of_folder(folder: Path, components: Iterable[str]) -> str:
    """sha256 (hex) over the weight files' names and bytes; the same on every machine and for every dtype loaded."""
    whole = hashlib.sha256()
    for component in sorted(components):
        for path in weight_files(folder, component):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{component}/{path.name} {digest}\n".encode())
    return whole.hexdigest()


def fingerprint_of_modules(modules: Mapping[str, nn.Module]) -> str:
    """sha256 (hex) over the tensors of modules that come from no file."""
    whole = hashlib.sha256()
    for component in sorted(modules):
        for key, tensor in sorted(modules[component].state_dict().items()):
            whole.update(f"{component}.{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            whole.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
