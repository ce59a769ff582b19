"""Tensors that carry a sha256 of their own content."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.library.hashed import CHECKSUM, RESTORE, damaged, other_checksum
from mnemon.tensor_files import tensors_sha256, write_safetensors


def write_hashed_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` as safetensors with their checksum in the header, atomically."""
    write_safetensors(path, tensors, {CHECKSUM: tensors_sha256(tensors)})


def read_hashed_tensors(path: Path, remedy: str = RESTORE) -> dict[str, Tensor]:
    """What `write_hashed_tensors` wrote.

    Raises:
        MnemonError: the file is no such file or was changed; the message ends in `remedy`.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            checksum = (file.metadata() or {}).get(CHECKSUM)
    except FileNotFoundError:
        raise MnemonError(f"The file {path} is missing: {remedy}.") from None
    except Exception as error:  # of any type: the bytes of a damaged file may say anything
        raise damaged(path, str(error), remedy) from None
    if checksum is None:
        raise damaged(path, "it has no checksum", remedy)
    if checksum != (found := tensors_sha256(tensors)):
        raise damaged(path, other_checksum(found, checksum), remedy)
    return tensors
