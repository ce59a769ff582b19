"""Tensors that can be computed again at any revision: features of references and of prompts, and
fusions. Each file says what it belongs to, so that one of another concept or revision is never taken for it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mnemon.adapters import Delta, load_deltas, save_deltas
from mnemon.files import writing
from mnemon.library.entry import Entry
from mnemon.library.hashed_tensors import read_hashed_tensors, write_hashed_tensors

AGAIN = "delete it, it is computed again"


def write_references(library: Path, entry: Entry, tensors: Mapping[str, Tensor]) -> None:
    write_hashed_tensors(_references(library, entry), tensors, _concept(entry))


def read_references(library: Path, entry: Entry) -> dict[str, Tensor]:
    """Features of images of the concept that `entry` brought; empty if there are none."""
    path = _references(library, entry)
    remedy = "delete it, and the concept can be generated but not scored"
    return read_hashed_tensors(path, _concept(entry), remedy) if path.exists() else {}


def write_prompt_features(library: Path, entry: Entry, factors: Mapping[str, Tensor]) -> None:
    write_hashed_tensors(_prompt_features(library, entry), factors, _concept(entry))


def read_prompt_features(library: Path, entry: Entry) -> dict[str, Tensor] | None:
    """What the concept's prompts read, as `evaluation.forecast.prompt_features`; None if nothing was kept."""
    path = _prompt_features(library, entry)
    return read_hashed_tensors(path, _concept(entry), AGAIN) if path.exists() else None


def write_fused(library: Path, revision: int, checksum: str, deltas: Mapping[str, Delta]) -> None:
    """Keep the changes fused at a revision, whose last commit has this `checksum`, in place of those of others."""
    path = _fused(library, revision)
    write_hashed_tensors(path, save_deltas(deltas), _revision(revision, checksum))
    with writing(path):
        for other in path.parent.glob("[0-9]*.safetensors"):
            if other != path:
                other.unlink()


def read_fused(library: Path, revision: int, checksum: str) -> dict[str, Delta] | None:
    """The changes fused at `revision`; None if nothing was kept."""
    path = _fused(library, revision)
    return load_deltas(read_hashed_tensors(path, _revision(revision, checksum), AGAIN)) if path.exists() else None


def _concept(entry: Entry) -> str:
    return f"{entry.folder}, after the commit {entry.parent[:12]}"


def _revision(number: int, checksum: str) -> str:
    return f"revision {number}, the commit {checksum[:12]}"


def _references(library: Path, entry: Entry) -> Path:
    return library / "references" / f"{entry.folder}.safetensors"


def _prompt_features(library: Path, entry: Entry) -> Path:
    return library / "prompts" / f"{entry.folder}.safetensors"


def _fused(library: Path, revision: int) -> Path:
    return library / "fused" / f"{revision:06d}.safetensors"
