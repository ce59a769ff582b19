"""One commit of a library's history: a concept was learned, or removed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mnemon.data.concept import NAME
from mnemon.errors import MnemonError
from mnemon.files import file_sha256
from mnemon.library.hashed import CHECKSUM, RESTORE, check_file, read_hashed, write_hashed

LEARN, REMOVE = "learn", "remove"
DELTAS, TOKENS, EXTRA = "deltas.safetensors", "tokens.safetensors", "extra.safetensors"
_KEYS = {"class_noun": "noun", "checksum": CHECKSUM}  # fields whose key on disk is another
_FIELDS = {key: field for field, key in _KEYS.items()}


@dataclass(frozen=True)
class File:
    """What a file of the commit must be."""

    sha256: str
    bytes: int

    @staticmethod
    def of(path: Path) -> "File":
        return File(file_sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class Entry:
    """A commit.

    Attributes:
        number: 1 for the first commit; also the revision of the library after it.
        action: "learn" or "remove".
        concept: the concept's name.
        time: when, in ISO 8601, UTC.
        parent: checksum of the entry before, of library.json for the first.
        class_noun: the concept's class noun.
        files: the files it brings, by name inside `folder`.
        photos: {"source", "sha256"} of each photo.
        settings: how it was trained.
        facts: metadata from the method, e.g. {"mask_density": 0.61}.
        checksum: sha256 of all of the above.
    """

    number: int
    action: str
    concept: str
    time: str
    parent: str
    class_noun: str | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    photos: Sequence[Mapping[str, str]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    checksum: str = ""

    @property
    def folder(self) -> str:
        """Name of the concept's folder: the number keeps a name that is learned again apart."""
        return f"{self.number:06d}-{self.concept}"

    @property
    def stored_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def entry_path(library: Path, number: int) -> Path:
    return library / "history" / f"{number:06d}.json"


def write_entry(library: Path, entry: Entry) -> Entry:
    """Append `entry`: from here on it is part of the history. Returns it with its checksum."""
    body = {_KEYS.get(name, name): value for name, value in asdict(entry).items()}
    del body[CHECKSUM]
    return _entry(write_hashed(entry_path(library, entry.number), body))


def newest_entry(library: Path) -> int:
    """Number of the last commit on disk; 0 if there is none."""
    return max((int(path.stem) for path in (library / "history").glob("[0-9]*.json")), default=0)


def history_until(library: Path, root: str, at: int | None) -> list[Entry]:
    """The entries up to number `at`, or all of them, the chain of parents checked from `root`, the checksum of
    library.json, on.

    Raises:
        MnemonError: there is no such revision, or an entry is missing, damaged, or does not follow the one before.
    """
    newest = newest_entry(library)
    if at is not None and not 0 <= at <= newest:
        raise MnemonError(f"The library {library} has no revision {at}: its revisions are 0 to {newest}.")
    entries: list[Entry] = []
    for number in range(1, (newest if at is None else at) + 1):
        path = entry_path(library, number)
        entry = _read_entry(path)
        if entry.number != number or entry.parent != (entries[-1].checksum if entries else root):
            raise MnemonError(f"The file {path} does not belong to this history: {RESTORE}.")
        entries.append(entry)
    return entries


def active_entries(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Name -> the commit that brought it, for the concepts that are there after `entries`, in order of learning."""
    active: dict[str, Entry] = {}
    for entry in entries:
        if entry.action == LEARN:
            active[entry.concept] = entry
        else:
            del active[entry.concept]
    return active


def check_files(library: Path, entry: Entry) -> None:
    """Raises:
    MnemonError: a file that `entry` brought is missing or changed.
    """
    remedy = f"{RESTORE}, or open the library at revision {entry.number - 1}, before '{entry.concept}' was learned"
    for name, file in entry.files.items():
        check_file(library / "concepts" / entry.folder / name, file.sha256, remedy)


def _read_entry(path: Path) -> Entry:
    try:
        entry = _entry(read_hashed(path))
    except (TypeError, KeyError, AttributeError):
        raise MnemonError(f"The file {path} is not an entry of a library's history: {RESTORE}.") from None
    expected = {DELTAS, TOKENS} if entry.action == LEARN else set()
    brought = set(entry.files) - {EXTRA}
    if entry.action not in (LEARN, REMOVE) or not NAME.fullmatch(entry.concept) or brought != expected:
        # Names become paths: nothing in an entry may lead out of the library's folder.
        raise MnemonError(f"The file {path} is not an entry of a library's history: {RESTORE}.")
    return entry


def _entry(content: Mapping[str, Any]) -> Entry:
    body = {_FIELDS.get(key, key): value for key, value in content.items()}
    return Entry(**{**body, "files": {name: File(**file) for name, file in body["files"].items()}})
