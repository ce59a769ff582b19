"""Tensors that carry a sha256 of their own content, and of what they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.library.hashed import CHECKSUM, RESTORE, damaged, other_checksum
from mnemon.tensor_files import tensors_sha256, write_safetensors

SAID, OWNER = "mnemon", "of"  # the key in the header, and that of the owner in its JSON


def write_hashed_tensors(path: Path, tensors: Mapping[str, Tensor], owner: str) -> None:
    """Write `tensors` as safetensors, atomically, with what they belong to and the checksum of both in the header."""
    said = {OWNER: owner, CHECKSUM: tensors_sha256(tensors, head=owner)}
    # One key, since safetensors writes several in any order, and the same tensors are to give the same bytes.
    write_safetensors(path, tensors, {SAID: json.dumps(said)})


def read_hashed_tensors(path: Path, owner: str, remedy: str = RESTORE) -> dict[str, Tensor]:
    """What `write_hashed_tensors` wrote. Files of older versions do not say what they belong to.

    Raises:
        MnemonError: the file is no such file, was changed, or belongs to something else; the message ends in `remedy`.
    """
    tensors, said = read_owned_tensors(path, remedy)
    if said not in (owner, None):
        raise MnemonError(f"The file {path} is of {said}, not of {owner}: {remedy}.")
    return tensors


def read_owned_tensors(path: Path, remedy: str = RESTORE) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, and what they belong to; None in files of older versions. Raises as `read_hashed_tensors`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            said = json.loads(header[SAID]) if SAID in header else header
            owner, checksum = said.get(OWNER), said.get(CHECKSUM)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise MnemonError(f"The file {path} is missing: {remedy}.") from None
    except Exception as error:  # of any type: the bytes of a damaged file may say anything
        raise damaged(path, str(error), remedy) from None
    if checksum is None:
        raise damaged(path, "it has no checksum", remedy)
    if checksum != (found := tensors_sha256(tensors, head=owner or "")):
        raise damaged(path, other_checksum(found, checksum), remedy)
    return tensors, owner
