"""The library: an append-only history of concepts on disk.

    library.json                     format, base, method
    history/000001.json              one commit each; each names the checksum of the one before
    concepts/000001-rex/             deltas, tokens and, for some methods, extra .safetensors: never changed or deleted
    fused/000003.safetensors         the changes fused at revision 3, for methods that fuse; may be computed again
    references/000001-rex.safetensors  features of the images the concept is scored against
    scores/000003.json               row R[3, :] of the score matrix; may be measured again
    candidate/                       concepts that are staged, not committed; see `candidate`
    lock, lock.pid                   held by the one who writes, and who that is

A commit is made by the renaming of its history file and by nothing before it, so a crash leaves the old or the new
revision; garbage of a crashed commit is ignored, and removed by the next writer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.files import sync_folder
from mnemon.library import score_cache
from mnemon.library.concepts import read_concept, write_concept
from mnemon.library.entry import (
    LEARN,
    REMOVE,
    Entry,
    active_entries,
    check_files,
    history_until,
    newest_entry,
    write_entry,
)
from mnemon.library.garbage import clear_garbage
from mnemon.library.hashed import CHECKSUM
from mnemon.library.header import is_library, read_header, write_header
from mnemon.library.lock import exclusive
from mnemon.methods import method_of_record
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base


class Library:
    """A library at one revision of its history.

    Attributes:
        path: its folder.
        revision: number of commits applied; 0 for a new library.
        base_name, family, fingerprint: the base it belongs to.
        method: how its concepts are learned and composed.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], at: int | None) -> None:
        self.path = path
        self.base_name: str = header["base"]["name"]
        self.family: str = header["base"]["family"]
        self.fingerprint: str = header["base"]["fingerprint"]
        self.method: Method = method_of_record(header["method"]["name"], header["method"]["settings"])
        self._root: str = header[CHECKSUM]
        self._at = at
        self._locked = False
        self._entries = history_until(path, self._root, at)
        self._check_files()

    @classmethod
    def create(cls, path: Path | str, base: "Base | Library", method: Method) -> "Library":
        """Make an empty library in a new or empty folder, on a base or on that of another library.

        Raises:
            MnemonError: there is something else in the folder already, or the method cannot work on the base.
        """
        if not isinstance(base, Library):
            method.check_base(base)
        name = base.base_name if isinstance(base, Library) else base.name
        write_header(Path(path), name, base.family, base.fingerprint, method)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str, at: int | None = None) -> "Library":
        """Open a library as it is, or as it was after its commit number `at`, which can be read only.

        Raises:
            MnemonError: there is no library, no such revision, or a file is damaged; the message names it.
        """
        return cls(Path(path), read_header(Path(path)), at)

    @classmethod
    def open_or_create(cls, path: Path | str, base: Base, method: Method) -> "Library":
        """The library in the folder, which must be one of `base`; without one there, a new one with `method`."""
        if not is_library(path):
            return cls.create(path, base, method)
        library = cls.open(path)
        library.check_base(base)
        return library

    def check_base(self, base: Base) -> None:
        """Raises:
        MnemonError: the library was made on another base.
        """
        if base.fingerprint != self.fingerprint:
            raise MnemonError(
                f"The library {self.path} was made on the base '{self.base_name}' ({self.fingerprint[:12]}), "
                f"not on '{base.name}' ({base.fingerprint[:12]}): open it with the base it was made on."
            )

    def history(self) -> list[Entry]:
        """All commits up to this revision, the oldest first."""
        return list(self._entries)

    def concepts(self) -> dict[str, Entry]:
        """Name -> the commit that brought it, for the concepts of this revision, in order of learning."""
        return active_entries(self._entries)

    def names(self) -> list[str]:
        return list(self.concepts())

    def learned(self) -> list[TrainedConcept]:
        """The concepts of this revision in order of learning, freshly read from disk."""
        return [self._read_learned(entry) for entry in self.concepts().values()]

    def commit(
        self,
        learned: TrainedConcept,
        photos: Sequence[Mapping[str, str]] = (),
        settings: Mapping[str, Any] | None = None,
        references: Mapping[str, Tensor] | None = None,
    ) -> int:
        """Add a concept; returns the new revision. `photos` are {"source", "sha256"}, `settings` how it was trained,
        `references` features of images of it, as for `write_references`.

        Raises:
            MnemonError: the name is taken, the library was opened at a past revision, or another process wrote to it.
        """
        with self.lock():
            self._check_writable()
            self.check_name(learned.name)
            entry = self._next(LEARN, learned.name)
            files = write_concept(self.path / "concepts" / entry.folder, learned)
            if references:
                score_cache.write_references(self.path, entry, references)
            return self._append(
                replace(
                    entry,
                    class_noun=learned.class_noun,
                    files=files,
                    photos=[dict(photo) for photo in photos],
                    settings=dict(settings or {}),
                    facts=dict(learned.facts),
                )
            )

    def remove(self, name: str) -> int:
        """Take a concept out of the model; returns the new revision. Its files stay: past revisions still open.

        Raises:
            MnemonError: there is no such concept, or the method cannot take one out.
        """
        if not self.method.can_remove:
            raise MnemonError(
                f"The method '{self.method.name}' cannot remove a concept, because all its concepts share "
                "one change of the weights: open the library at an earlier revision, or learn the others in a new one."
            )
        with self.lock():
            self._check_writable()
            self._entry(name)
            return self._append(self._next(REMOVE, name))

    def check_name(self, name: str) -> None:
        """Raises:
        MnemonError: the name is taken. Worth asking before training.
        """
        if name in self.names():
            raise MnemonError(
                f"The library {self.path} already has a concept '{name}': choose another name. "
                "If its scores are missing, run `mnemon evaluate`."
            )

    def write_references(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep features of images of a concept of this revision, so that it can be scored without any photo."""
        entry = self._entry(name)
        with self.lock():
            score_cache.write_references(self.path, entry, tensors)

    def references(self, name: str) -> dict[str, Tensor]:
        """What `write_references` kept for a concept of this revision; empty if nothing."""
        return score_cache.read_references(self.path, self._entry(name))

    def all_references(self) -> dict[str, dict[str, Tensor]]:
        """Concept -> features of its reference images, for those that have some."""
        references = {name: self.references(name) for name in self.names()}
        return {name: features for name, features in references.items() if features}

    def write_row(self, revision: int, row: Mapping[str, Any]) -> None:
        """Write the row of scores of `revision`, in place of any earlier one.

        Raises:
            MnemonError: the library has no such revision.
        """
        with self.lock():
            if not 0 <= revision <= newest_entry(self.path):
                raise MnemonError(f"The library {self.path} has no revision {revision} to keep scores of.")
            score_cache.write_row(self.path, revision, row)

    def rows(self) -> dict[int, dict[str, Any]]:
        """Revision -> its row of scores, up to this revision, in order."""
        return score_cache.read_rows(self.path, self.revision)

    def write_fused(self, deltas: Mapping[str, Delta]) -> None:
        """Keep what `method.compose` gave at this revision, for methods whose fusion takes its time."""
        with self.lock():
            score_cache.write_fused(self.path, self.revision, deltas)

    def fused(self) -> dict[str, Delta] | None:
        """What `write_fused` kept of this revision; None if nothing."""
        return score_cache.read_fused(self.path, self.revision)

    @property
    def revision(self) -> int:
        return len(self._entries)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other writers out, e.g. for the time of training; may be nested.

        Raises:
            MnemonError: another process is writing, or has written since this library was opened.
        """
        if self._locked:
            yield
            return
        with exclusive(self.path / "lock"):
            newest = newest_entry(self.path)
            if self._at is None and newest != self.revision:
                raise MnemonError(
                    f"The library {self.path} is at revision {newest} by now, not {self.revision}: open it again."
                )
            clear_garbage(self.path, self._root)
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def _check_files(self) -> None:
        for entry in self._entries:
            check_files(self.path, entry)
        for name in self.names():
            self.references(name)
        self.rows()

    def _check_writable(self) -> None:
        if self._at is not None and self._at != newest_entry(self.path):
            raise MnemonError(f"The library {self.path} is open at its past revision {self._at}: open the newest one.")

    def _entry(self, name: str) -> Entry:
        concepts = self.concepts()
        if name not in concepts:
            known = ", ".join(concepts) or "none yet"
            raise MnemonError(f"The library {self.path} has no concept '{name}'; it has: {known}.")
        return concepts[name]

    def _next(self, action: str, name: str) -> Entry:
        parent = self._entries[-1].checksum if self._entries else self._root
        return Entry(self.revision + 1, action, name, datetime.now(UTC).isoformat(timespec="seconds"), parent)

    def _append(self, entry: Entry) -> int:
        self._entries.append(write_entry(self.path, entry))
        sync_folder(self.path)
        self._at = None
        return self.revision

    def _read_learned(self, entry: Entry) -> TrainedConcept:
        folder = self.path / "concepts" / entry.folder
        return read_concept(folder, entry.concept, entry.class_noun, entry.files, entry.facts)
