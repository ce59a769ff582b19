"""Rows of scores, by revision: they may be measured again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.library.hashed import read_hashed, write_hashed

REMEDY = "delete it and run `mnemon evaluate`"


def write_row(library: Path, revision: int, row: Mapping[str, Any]) -> None:
    write_hashed(_path(library, revision), {"state": revision, "row": dict(row)})


def read_rows(library: Path, newest: int) -> dict[int, dict[str, Any]]:
    """Revision -> its row, for those up to `newest` that have one, in order."""
    rows = {revision: read_row(library, revision) for revision in range(newest + 1)}
    return {revision: row for revision, row in rows.items() if row is not None}


def read_row(library: Path, revision: int) -> dict[str, Any] | None:
    """Raises:
    MnemonError: the file was changed, or is of another revision.
    """
    path = _path(library, revision)
    if not path.exists():
        return None
    content = read_hashed(path, REMEDY)
    if content["state"] != revision:
        raise MnemonError(f"The file {path} holds the scores of revision {content['state']}: {REMEDY}.")
    row: dict[str, Any] = content["row"]
    return row


def _path(library: Path, revision: int) -> Path:
    return library / "scores" / f"{revision:06d}.json"
