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
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or lists within lists without end
        raise damaged(path, f"it is no JSON: {error}", remedy) from None
    if not isinstance(body, dict) or CHECKSUM not in body:
        raise damaged(path, "it has no checksum", remedy)
    checksum = _checksum({key: value for key, value in body.items() if key != CHECKSUM})
    if body[CHECKSUM] != checksum:
        raise damaged(path, other_checksum(checksum, str(body[CHECKSUM])), remedy)
    return body


def check_file(path: Path, sha256: str, size: int, remedy: str = RESTORE) -> None:
    """Raises:
    MnemonError: the file is missing, or has not this many bytes or not this hash.
    """
    if not path.is_file():
        raise MnemonError(f"The file {path} is missing: {remedy}.")
    if (found := path.stat().st_size) != size:
        raise damaged(path, f"it has {found} bytes, where {size} were written", remedy)
    if (sha := file_sha256(path)) != sha256:
        raise damaged(path, other_checksum(sha, sha256), remedy)


def damaged(path: Path, fact: str, remedy: str) -> MnemonError:
    return MnemonError(f"The file {path} is damaged or was changed ({fact}): {remedy}.")


def other_checksum(found: str, written: str) -> str:
    return f"its content has the checksum {found[:12]}, where {written[:12]} was written"


def _checksum(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
