"""Files of named tensors, written whole or not at all, and the hashes of named tensors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mnemon.files import replacing


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    packed = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as aside:
        # None, not {}: with an empty dictionary and no tensors, safetensors 0.8 writes a header that it cannot read.
        save_file(packed, str(aside), metadata=dict(metadata) if metadata else None)


def tensors_sha256(tensors: Mapping[str, Tensor], head: str = "", end: str = "\n") -> str:
    """sha256 (hex) over `head`, then names, dtypes, shapes and bytes, in order of the names.

    Args:
        end: what stands between a tensor's shape and its bytes.
    """
    digest = hashlib.sha256(head.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}{end}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
