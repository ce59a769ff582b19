"""Small records in JSON that the page keeps for itself."""

import json
from pathlib import Path
from typing import TypeVar

from mnemon.errors import MnemonError

T = TypeVar("T")


def read_record(path: Path, kind: type[T]) -> T | None:
    """The dataclass `kind` that was written to `path` as JSON; None if it is damaged or of another version."""
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, MnemonError):
        return None
