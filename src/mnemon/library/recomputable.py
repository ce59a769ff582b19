"""Tensors that can be computed again at any revision: features of references and of prompts, and
fusions."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mnemon.adapters import Delta, load_deltas, save_deltas
from mnemon.library.entry import Entry
from mnemon.library.hashed_tensors import read_hashed_tensors, write_hashed_tensors


def write_references(library: Path, entry: Entry, tensors: Mapping[str, Tensor]) -> None:
    write_hashed_tensors(_references(library, entry), tensors)


def read_references(library: Path, entry: Entry) -> dict[str, Tensor]:
    """Features of images of the concept that `entry` brought; empty if there are none."""
    path = _references(library, entry)
    remedy = "delete it, and the concept can be generated but not scored"
    return read_hashed_tensors(path, remedy) if path.exists() else {}


def write_prompt_features(library: Path, entry: Entry, factors: Mapping[str, Tensor]) -> None:
    write_hashed_tensors(_prompt_features(library, entry), factors)


def read_prompt_features(library: Path, entry: Entry) -> dict[str, Tensor] | None:
    """What the concept's prompts read, as `evaluation.forecast.prompt_features`; None if nothing was kept."""
    path = _prompt_features(library, entry)
    return read_hashed_tensors(path, "delete it, it is computed again") if path.exists() else None


def write_fused(library: Path, revision: int, deltas: Mapping[str, Delta]) -> None:
    write_hashed_tensors(_fused(library, revision), save_deltas(deltas))


def read_fused(library: Path, revision: int) -> dict[str, Delta] | None:
    """The changes fused at `revision`; None if nothing was kept."""
    path = _fused(library, revision)
    return load_deltas(read_hashed_tensors(path, "delete it, it is computed again")) if path.exists() else None


def _references(library: Path, entry: Entry) -> Path:
    return library / "references" / f"{entry.folder}.safetensors"


def _prompt_features(library: Path, entry: Entry) -> Path:
    return library / "prompts" / f"{entry.folder}.safetensors"


def _fused(library: Path, revision: int) -> Path:
    return library / "fused" / f"{revision:06d}.safetensors"
