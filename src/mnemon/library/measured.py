"""What is measured or computed at a library's states, and can be again: features of references, scores, fusions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta, load_deltas, save_deltas
from mnemon.library.entry import Entry
from mnemon.library.sealed import read_sealed, read_sealed_tensors, write_sealed, write_sealed_tensors


def write_references(library: Path, entry: Entry, tensors: Mapping[str, Tensor]) -> None:
    write_sealed_tensors(_references(library, entry), tensors)


def read_references(library: Path, entry: Entry) -> dict[str, Tensor]:
    """Features of images of the concept that `entry` brought; empty if there are none."""
    path = _references(library, entry)
    return read_sealed_tensors(path, "delete it, and the concept is drawn but not scored") if path.exists() else {}


def write_row(library: Path, state: int, row: Mapping[str, Any]) -> None:
    write_sealed(_row(library, state), {"state": state, "row": dict(row)})


def read_rows(library: Path, newest: int) -> dict[int, dict[str, Any]]:
    """State -> the row measured there, for those up to `newest` that have one, in order."""
    rows = {}
    for state in range(newest + 1):
        if _row(library, state).exists():
            rows[state] = read_sealed(_row(library, state), "delete it and run `mnemon evaluate`")["row"]
    return rows


def write_fused(library: Path, state: int, deltas: Mapping[str, Delta]) -> None:
    write_sealed_tensors(_fused(library, state), save_deltas(deltas))


def read_fused(library: Path, state: int) -> dict[str, Delta] | None:
    """The changes fused at `state`; None if nothing was kept."""
    path = _fused(library, state)
    return load_deltas(read_sealed_tensors(path, "delete it, it is computed again")) if path.exists() else None


def _references(library: Path, entry: Entry) -> Path:
    return library / "references" / f"{entry.folder}.safetensors"


def _row(library: Path, state: int) -> Path:
    return library / "scores" / f"{state:06d}.json"


def _fused(library: Path, state: int) -> Path:
    return library / "fused" / f"{state:06d}.safetensors"
