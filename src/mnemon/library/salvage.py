"""What is whole of a damaged library, as a new library."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.files import new_folder
from mnemon.library.concepts import write_files
from mnemon.library.entry import LEARN, Entry, File, active_entries, entry_path, newest_entry, read_entry
from mnemon.library.garbage import commit_number
from mnemon.library.hashed import CHECKSUM, check_file
from mnemon.library.hashed_tensors import read_owned_tensors
from mnemon.library.header import CONCEPTS, read_header, write_header
from mnemon.library.history import History
from mnemon.library.recomputable import read_references, write_references

Said = Mapping[str, Any]
"""`History.about`, as a concept's files say it."""


@dataclass
class Salvaged:
    """What `salvage` did.

    Attributes:
        names: the concepts of the new library, in order.
        notes: what is not in it and why, and what was made again, one sentence each.
    """

    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def salvage(library: Path | str, out: Path | str) -> Salvaged:
    """Write a new library to `out` with those concepts of the newest revision whose files are whole, in their order.

    Where library.json or files of the history are damaged, what the concepts' files say of themselves takes their
    place: then photos and training settings are not known. Scores are not carried over. The old library is only read.

    Raises:
        MnemonError: `out` exists, or nothing is whole.
    """
    path, folder, done = Path(library), Path(out), Salvaged()
    if folder.exists():
        raise MnemonError(f"{folder} exists already: choose a new folder for what is whole.")
    header = _header(path, done)
    chosen = list(_whole(path, header, active_entries(_entries(path, header, done)), done))
    if not chosen:
        raise MnemonError(f"Nothing of {path} is whole: there is nothing to salvage.")
    with new_folder(folder) as aside:
        write_header(aside, header["base"], header["method"], header.get("kind", CONCEPTS))
        for entry in chosen:
            _Written.open(aside).add(path, entry, _references(path, entry, done))
    done.names = [entry.concept for entry in chosen]
    return done


class _Written(History):
    """The new library while it is filled, whatever it holds; nobody else knows of it."""

    def __init__(self, path: Path, header: Mapping[str, Any], at: int | None) -> None:
        super().__init__(path, {**header, "kind": CONCEPTS}, at)
        self._header = {key: value for key, value in header.items() if key != CHECKSUM}

    def add(self, source: Path, entry: Entry, references: Mapping[str, Tensor]) -> None:
        next_ = self._next(LEARN, entry.concept)
        new = replace(entry, number=next_.number, time=next_.time, parent=next_.parent)
        folder = source / "concepts" / entry.folder
        tensors = {name: load_file(folder / name) for name in entry.files}
        files = write_files(self.path / "concepts" / new.folder, tensors, self.about(new))
        if references:
            write_references(self.path, new, references)
        self._append(replace(new, files=files, settings={**entry.settings, "salvaged": {"state": entry.number}}))


def _header(path: Path, done: Salvaged) -> dict[str, Any]:
    try:
        return {key: value for key, value in read_header(path).items() if key != CHECKSUM}
    except MnemonError as error:
        said = [one for folder in _folders(path) if (one := _said(folder))]
        if not said:
            raise
        done.notes.append(f"{error} Base and method are taken from the concepts' own files.")
        return dict(said[-1]["library"])


def _entries(path: Path, header: Mapping[str, Any], done: Salvaged) -> Iterator[Entry]:
    """The commits, those that are lost made again from the concept that they brought."""
    folders = {commit_number(folder): folder for folder in _folders(path)}
    for number in range(1, max([newest_entry(path), *(key for key in folders if key is not None)]) + 1):
        try:
            entry = read_entry(entry_path(path, number))
            if entry.number != number:
                raise MnemonError(f"The file {entry_path(path, number)} is the commit {entry.number}.")
            yield entry
        except MnemonError as error:
            said = _said(folders[number]) if number in folders else None
            if said is None or said["library"] != header:
                done.notes.append(f"{error} What it did is unknown: it may have removed a concept that is there again.")
                continue
            done.notes.append(f"{error} It is made again from what the files of <{said['name']}> say.")
            files = {file.name: File.of(file) for file in sorted(folders[number].glob("*.safetensors"))}
            yield Entry(number, LEARN, said["name"], "", "", said["noun"], files=files, facts=said["facts"])


def _whole(path: Path, header: Mapping[str, Any], active: Mapping[str, Entry], done: Salvaged) -> Iterator[Entry]:
    """The concepts whose files are as they were written."""
    for entry in active.values():
        try:
            for name, file in entry.files.items():
                check_file(path / "concepts" / entry.folder / name, file.sha256, file.bytes, "")
        except MnemonError as error:
            done.notes.append(f"<{entry.concept}> is left out: {str(error).rstrip(': .')}.")
            if not header["method"].get("can_remove", True):
                done.notes.append("So are those after it, which stand on it.")
                return
        else:
            yield entry


def _references(path: Path, entry: Entry, done: Salvaged) -> Mapping[str, Tensor]:
    try:
        return read_references(path, entry)
    except MnemonError as error:
        done.notes.append(f"<{entry.concept}> cannot be scored: {error}")
        return {}


def _folders(path: Path) -> list[Path]:
    """The folders of concepts, with a commit or without."""
    found = (path / "concepts").iterdir() if (path / "concepts").is_dir() else iter(())
    return sorted(folder for folder in found if folder.is_dir() and commit_number(folder) is not None)


def _said(folder: Path) -> Said | None:
    """What all files of a concept say of themselves; None if one is damaged, or made before files said anything."""
    try:
        said = [json.loads(read_owned_tensors(file)[1] or "null") for file in folder.glob("*.safetensors")]
        same = all(one == said[0] for one in said) and folder.name == f"{said[0]['number']:06d}-{said[0]['name']}"
    except (MnemonError, ValueError, LookupError, TypeError):
        return None
    return said[0] if same else None
