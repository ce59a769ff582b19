"""One commit of a library's history: a concept was learned, or removed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.files import file_sha256
from mnemon.library.hashed import CHECKSUM, RESTORE, read_hashed, write_hashed
from mnemon.names import NAME

LEARN, REMOVE, PURGED = "learn", "remove", "purged"
DELTAS, TOKENS, EXTRA = "deltas.safetensors", "tokens.safetensors", "extra.safetensors"
HEAD = "head.safetensors"  # in place of the tokens, in a library of classes
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
        action: "learn" or "remove"; "purged" for what brought a concept whose files were deleted for good.
        concept: the concept's name.
        time: when, in ISO 8601, UTC.
        parent: checksum of the entry before, of library.json for the first.
        class_noun: the concept's class noun.
        files: the files it brings, by name inside `folder`.
        photos: {"source", "sha256"} of each photo.
        settings: how it was trained.
        facts: metadata from the method, e.g. {"mask_density": 0.61}.
        checksum: sha256 of all of the above.
        was: of a purged entry, its checksum before: the next entry names that one.
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
    was: str = ""

    @property
    def folder(self) -> str:
        """Name of the concept's folder: the number keeps a name that is learned again apart."""
        return f"{self.number:06d}-{self.concept}"

    @property
    def remedy(self) -> str:
        """How an error about a file of the concept goes on."""
        return f"{RESTORE}, or open the library at revision {self.number - 1}, before '{self.concept}' was learned"

    @property
    def stored_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def entry_path(library: Path, number: int) -> Path:
    return library / "history" / f"{number:06d}.json"


def write_entry(library: Path, entry: Entry) -> Entry:
    """Append `entry`: from here on it is part of the history. Returns it with its checksum."""
    body = {_KEYS.get(name, name): value for name, value in asdict(entry).items()}
    del body[CHECKSUM]
    if not entry.was:
        del body["was"]
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
    return list(chain(library, root, newest if at is None else at))


def chain(library: Path, root: str, last: int) -> Iterator[Entry]:
    """The entries 1 to `last`, one after another, each checked before it is given. Raises as `history_until` does."""
    parent = root
    for number in range(1, last + 1):
        path = entry_path(library, number)
        entry = read_entry(path)
        if entry.number != number or entry.parent != parent:
            other = f"it is entry {entry.number}" if entry.number != number else f"it follows {entry.parent[:12]}"
            raise MnemonError(
                f"The file {path} does not belong to this history ({other}, where entry {number} follows "
                f"{parent[:12]}): {RESTORE}."
            )
        parent = entry.was or entry.checksum
        yield entry


def active_entries(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Name -> the commit that brought it, for the concepts that are there after `entries`, in order of learning."""
    active: dict[str, Entry] = {}
    for entry in entries:
        if entry.action == LEARN:
            active[entry.concept] = entry
        else:
            active.pop(entry.concept, None)
    return active


def read_entry(path: Path) -> Entry:
    """Raises:
    MnemonError: the file is missing, damaged, or no entry.
    """
    try:
        entry = _entry(read_hashed(path))
    except (TypeError, KeyError, AttributeError) as error:
        raise _no_entry(path, str(error)) from None
    expected = ({DELTAS, TOKENS}, {DELTAS, HEAD}) if entry.action == LEARN else (set[str](),)
    brought = set(entry.files) - {EXTRA}
    # Names become paths: nothing in an entry may lead out of the library's folder.
    if entry.action not in (LEARN, REMOVE, PURGED):
        raise _no_entry(path, f"its action is '{entry.action}'")
    if not NAME.fullmatch(entry.concept):
        raise _no_entry(path, f"no concept can be called '{entry.concept}'")
    if brought not in expected:
        raise _no_entry(path, f"its files are {sorted(brought)}, not {sorted(expected[0])}")
    return entry


def _no_entry(path: Path, fact: str) -> MnemonError:
    return MnemonError(f"The file {path} is not an entry of a library's history ({fact}): {RESTORE}.")


def _entry(content: Mapping[str, Any]) -> Entry:
    body = {_FIELDS.get(key, key): value for key, value in content.items()}
    entry = Entry(**{**body, "files": {name: File(**file) for name, file in body["files"].items()}})
    _check_types(entry)
    return entry


def _check_types(entry: Entry) -> None:
    """Raise a TypeError: a checksum says that an entry is as it was written, not that mnemon wrote it."""
    sizes = [file.bytes for file in entry.files.values()]
    texts = [
        entry.action,
        entry.concept,
        entry.time,
        entry.parent,
        entry.was,
        *(file.sha256 for file in entry.files.values()),
    ]
    texts += [one for photo in entry.photos for one in (*photo.keys(), *photo.values())]
    texts += [] if entry.class_noun is None else [entry.class_noun]
    right: dict[type, list[Any]] = {
        int: [entry.number, *sizes],
        str: texts,
        dict: [entry.settings, entry.facts],
        list: [entry.photos],
    }
    for kind, values in right.items():
        if wrong := [value for value in values if not isinstance(value, kind)]:
            raise TypeError(f"{wrong[0]!r:.40} is no {kind.__name__}")
