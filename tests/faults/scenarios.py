"""Commands that write to a library, each with the library that it starts from. A command can be given again after
whatever befell it, and then ends as if nothing had."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from mnemon.library import (
    Candidate,
    History,
    Library,
    Proposal,
    commit_all,
    commit_candidate,
    discard_candidate,
    has_candidate,
    is_library,
    is_unfinished,
    put_aside,
)
from mnemon.library.salvage import salvage
from tests.library.fakes import Adding, NamedBase, concept

FEATURES = {"image": torch.eye(3), "identity": torch.eye(4)}
ROW = {"concepts": {"rex": {"identity_alignment": 0.5}}, "general": {}}
PAIR = (Proposal(concept("tom", 2), (), {"seconds": 3}, FEATURES), Proposal(concept("sip", 3)))


def start(path: Path) -> None:
    """A library with everything that one may hold but a candidate."""
    library = Library.create(path, NamedBase(), Adding())
    library.commit(concept("rex", 1), [{"source": "rex.jpg", "sha256": "a"}], {}, FEATURES)
    library.commit(concept("gone", 7))
    library.remove("gone")
    library.commit(concept("may", 8))
    library.write_row(4, ROW)
    library.write_fused(concept("may", 8).deltas)


def create(path: Path) -> None:
    if not is_library(path):
        Library.create(path, NamedBase(), Adding())
    commit(path)


def commit(path: Path) -> None:
    library = Library.open(path)
    if "tom" not in library.names():
        library.commit(concept("tom", 2), (), {"seconds": 3}, FEATURES)
    library.write_row(library.revision, ROW)
    library.write_prompt_features("tom", FEATURES)
    library.write_fused(concept("tom", 2).deltas)


def group(path: Path) -> None:
    library = Library.open(path)
    with library.lock():
        if "tom" not in library.names():
            commit_all(library, PAIR)


def stage_and_commit(path: Path) -> None:
    library = Library.open(path)
    if "sip" in library.names() and not has_candidate(library):
        return
    if not has_candidate(library):
        put_aside(library, Candidate(PAIR, ROW, {"rex": (0.9, 0.5)}))
    commit_candidate(library)


def stage_and_discard(path: Path) -> None:
    library = Library.open(path)
    if not has_candidate(library):
        put_aside(library, Candidate(PAIR, ROW, {"rex": (0.9, 0.5)}))
    discard_candidate(library)


def remove(path: Path) -> None:
    if "rex" in History.open(path).names():
        History.open(path).remove("rex")


def purge(path: Path) -> None:
    History.open(path).purge("rex")


def rescue(path: Path) -> None:
    out = path / "salvaged"  # within, so that it is compared
    if not out.exists():
        salvage(path, out)


COMMANDS: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (create, commit, group, stage_and_commit, stage_and_discard, remove, purge, rescue)
}


def prepared(command: str, template: Path, path: Path) -> Path:
    """What the command starts from; `template` is what `start` made."""
    return path if command == "create" else Path(shutil.copytree(template, path))


def contents(path: Path) -> dict[str, str]:
    """What a library holds: hashes of its weights and features, and what its history and scores say, without times."""
    if not is_library(path):
        return {}
    library = Library.open(path)
    said = {
        f"entry {entry.number}": f"{entry.action} {entry.concept} {entry.files} {entry.settings} {list(entry.photos)}"
        for entry in library.history()
    }
    for one in library.learned():
        said[f"concept {one.name}"] = _hashed(*(delta.matrix() for delta in one.deltas.values()), *one.tokens.values())
        said[f"references {one.name}"] = _hashed(*library.references(one.name).values())
    fused = library.fused()
    said["fused"] = "" if fused is None else _hashed(*(delta.matrix() for delta in fused.values()))
    said["rows"] = str(library.rows())
    said["candidate"] = str(has_candidate(library) and not is_unfinished(path))
    inner = contents(path / "salvaged") if (path / "salvaged").exists() else {}
    return said | {f"salvaged {key}": value for key, value in inner.items()}


def _hashed(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()
