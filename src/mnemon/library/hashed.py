"""Files that show when they were changed: JSON that carries a sha256 of its own content, and files of a known hash."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.files import file_sha256, write_json

RESTORE = "put it back from a copy of the library"
CHECKSUM = "seal"  # the key on disk


def write_hashed(path: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """Write `body` as JSON with its checksum, atomically; returns what was written.

    Raises:
        ValueError: `body` holds something JSON cannot hold, e.g. nan.
    """
    plain: dict[str, Any] = json.loads(json.dumps(body, allow_nan=False))
    hashed = plain | {CHECKSUM: _checksum(plain)}
    write_json(path, hashed)
    return hashed


def read_hashed(path: Path, remedy: str = RESTORE) -> dict[str, Any]:
    """What `write_hashed` wrote, its checksum included.

    Raises:
        MnemonError: the file is missing, is no such file, or was changed; the message ends in `remedy`.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MnemonError(f"The file {path} is missing: {remedy}.") from None
    except ValueError:
        raise damaged(path, remedy) from None
    if not isinstance(body, dict) or body.get(CHECKSUM) != _checksum({k: v for k, v in body.items() if k != CHECKSUM}):
        raise damaged(path, remedy)
    return body


def check_file(path: Path, sha256: str, remedy: str = RESTORE) -> None:
    """Raises:
    MnemonError: the file is missing or its bytes do not have this hash.
    """
    if not path.is_file():
        raise MnemonError(f"The file {path} is missing: {remedy}.")
    if file_sha256(path) != sha256:
        raise damaged(path, remedy)


def damaged(path: Path, remedy: str) -> MnemonError:
    return MnemonError(f"The file {path} is damaged or was changed: {remedy}.")


def _checksum(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
