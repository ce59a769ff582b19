"""Files that tell when they were changed: JSON and tensors that carry a sha256 of their own content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.files import file_sha256, tensors_sha256, write_json, write_safetensors

RESTORE = "put it back from a copy of the library"
SEAL = "seal"


def write_sealed(path: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """Write `body` as JSON with its seal, atomically; returns what was written.

    Raises:
        ValueError: `body` holds something JSON has no word for, e.g. nan.
    """
    plain: dict[str, Any] = json.loads(json.dumps(body, allow_nan=False))
    sealed = plain | {SEAL: _seal(plain)}
    write_json(path, sealed)
    return sealed


def read_sealed(path: Path, remedy: str = RESTORE) -> dict[str, Any]:
    """What `write_sealed` wrote, its seal included.

    Raises:
        MnemonError: the file is missing, is no such file, or was changed; the message ends in `remedy`.
    """
    try:
        sealed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MnemonError(f"The file {path} is missing: {remedy}.") from None
    except ValueError:
        raise _damaged(path, remedy) from None
    if not isinstance(sealed, dict) or sealed.get(SEAL) != _seal({k: v for k, v in sealed.items() if k != SEAL}):
        raise _damaged(path, remedy)
    return sealed


def write_sealed_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` as safetensors with their seal in the header, atomically."""
    write_safetensors(path, tensors, {SEAL: tensors_sha256(tensors)})


def read_sealed_tensors(path: Path, remedy: str = RESTORE) -> dict[str, Tensor]:
    """What `write_sealed_tensors` wrote.

    Raises:
        MnemonError: the file is no such file or was changed; the message ends in `remedy`.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            seal = (file.metadata() or {}).get(SEAL)
    except SafetensorError:
        raise _damaged(path, remedy) from None
    if seal != tensors_sha256(tensors):
        raise _damaged(path, remedy)
    return tensors


def check_file(path: Path, sha256: str, remedy: str = RESTORE) -> None:
    """Raises:
    MnemonError: the file is missing or its bytes do not have this hash.
    """
    if not path.is_file():
        raise MnemonError(f"The file {path} is missing: {remedy}.")
    if file_sha256(path) != sha256:
        raise _damaged(path, remedy)


def _damaged(path: Path, remedy: str) -> MnemonError:
    return MnemonError(f"The file {path} is damaged or was changed: {remedy}.")


def _seal(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
