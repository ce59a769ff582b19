"""One hash that says which weights a base has; a library refuses to open on others."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from mnemon.models.hash_cache import cached_sha256
from mnemon.tensor_files import tensors_sha256


def fingerprint_of_files(files: Mapping[str, Iterable[Path]]) -> str:
    """sha256 (hex) over the names and bytes of the weight files of each component; the same on every machine and for
    every dtype loaded."""
    whole = hashlib.sha256()
    for component in sorted(files):
        for path in files[component]:
            whole.update(f"{component}/{path.name} {cached_sha256(path)}\n".encode())
    return whole.hexdigest()


def fingerprint_of_modules(modules: Mapping[str, nn.Module]) -> str:
    """sha256 (hex) over the tensors of modules that come from no file."""
    return tensors_sha256(
        {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    )
