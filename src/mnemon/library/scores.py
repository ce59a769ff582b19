"""Rows of scores, by revision: they may be measured again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.library.hashed import damaged, read_hashed, write_hashed

REMEDY = "delete it and run `mnemon evaluate`"


def write_row(library: Path, revision: int, checksum: str, row: Mapping[str, Any]) -> None:
    """Write the row of a revision, whose last commit has this `checksum`."""
    write_hashed(_path(library, revision), {"state": revision, "commit": checksum, "row": dict(row)})


def read_rows(library: Path, checksums: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Revision -> its row, for those that have one, in order; `checksums` are those of revision 0 and all after it."""
    rows = {revision: read_row(library, revision, checksum) for revision, checksum in enumerate(checksums)}
    return {revision: row for revision, row in rows.items() if row is not None}


def read_row(library: Path, revision: int, checksum: str) -> dict[str, Any] | None:
    """Raises:
    MnemonError: the file was changed, is no row, or is of another revision or commit.
    """
    path = _path(library, revision)
    if not path.exists():
        return None
    content = read_hashed(path, REMEDY)
    if content.get("state") != revision:
        raise MnemonError(f"The file {path} holds the scores of revision {content.get('state')}: {REMEDY}.")
    if content.get("commit", checksum) != checksum:  # files of older versions do not say
        raise MnemonError(f"The file {path} holds the scores of another commit: {REMEDY}.")
    row = content["row"] if isinstance(content.get("row"), dict) else {}
    concepts = row.get("concepts")
    if not isinstance(concepts, dict) or not all(isinstance(scores, dict) for scores in concepts.values()):
        raise damaged(path, "it holds no row of scores", REMEDY)
    return dict(row)


def _path(library: Path, revision: int) -> Path:
    return library / "scores" / f"{revision:06d}.json"
