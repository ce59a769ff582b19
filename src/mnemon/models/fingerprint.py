"""One hash that says which weights a base has; a library refuses to open on others."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from mnemon.files import file_sha256
from mnemon.tensor_files import tensors_sha256

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
            whole.update(f"{component}/{path.name} {file_sha256(path)}\n".encode())
    return whole.hexdigest()


def fingerprint_of_modules(modules: Mapping[str, nn.Module]) -> str:
    """sha256 (hex) over the tensors of modules that come from no file."""
    return tensors_sha256(
        {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    )
