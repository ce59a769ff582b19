"""The append-only history of a library, without its tensors: quick to import, and to read.

    library.json                     format, base, method
    history/000001.json              one commit each; each names the checksum of the one before
    concepts/000001-rex/             deltas, tokens and, for some methods, extra .safetensors: never changed or deleted
    fused/000003.safetensors         the changes fused at revision 3, for methods that fuse; may be computed again
    references/000001-rex.safetensors  features of the images the concept is scored against
    prompts/000001-rex.safetensors   what its prompts read, for the forecast of forgetting; may be computed again
    scores/000003.json               row R[3, :] of the score matrix; may be measured again
    lost/                            whole concepts of interrupted commits; nobody reads it
    candidate/                       concepts that are staged, not committed; see `candidate`
    lock, lock.pid                   held by the one who writes, and who that is

A commit is made by the renaming of its history file and by nothing before it, so a crash leaves the old or the new
revision; garbage of a crashed commit is ignored, and taken away by the next writer. Opening reads library.json and the
history only; a concept's files are checked against the history when they are read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from mnemon.errors import MnemonError
from mnemon.files import sync_folder
from mnemon.library.entry import LEARN, PURGED, REMOVE, Entry, active_entries, history_until, newest_entry, write_entry
from mnemon.library.garbage import CANDIDATE, clear_garbage, delete_traces
from mnemon.library.hashed import CHECKSUM
from mnemon.library.header import CONCEPTS, check_kind, read_header
from mnemon.library.lock import exclusive
from mnemon.library.scores import read_rows, write_row
from mnemon.names import public_base


class History:
    """A library at one revision of its history.

    Attributes:
        path: its folder.
        revision: number of commits applied; 0 for a new library.
        base_name, family, fingerprint: the base it belongs to.
        method_name: the method that its concepts are learned with.
    """

    kind: ClassVar[str] = CONCEPTS
    """What it holds."""

    def __init__(self, path: Path, header: Mapping[str, Any], at: int | None) -> None:
        check_kind(path, header, self.kind)
        self.path = path
        self.base_name: str = header["base"]["name"]
        self.family: str = header["base"]["family"]
        self.fingerprint: str = header["base"]["fingerprint"]
        self.method_name: str = header["method"]["name"]
        self._can_remove: bool | None = header["method"].get("can_remove")
        self._root: str = header[CHECKSUM]
        self._header = {key: value for key, value in header.items() if key != CHECKSUM}
        self._at = at
        self._locked = False
        self._entries = history_until(path, self._root, at)

    @classmethod
    def open(cls, path: Path | str, at: int | None = None) -> Self:
        """Open a library as it is, or as it was after its commit number `at`, which can be read only.

        Raises:
            MnemonError: there is no library, no such revision, or its history is damaged; the message names the file.
        """
        return cls(Path(path), read_header(Path(path)), at)

    def history(self) -> list[Entry]:
        """All commits up to this revision, the oldest first."""
        return list(self._entries)

    def concepts(self) -> dict[str, Entry]:
        """Name -> the commit that brought it, for the concepts of this revision, in order of learning."""
        return active_entries(self._entries)

    def names(self) -> list[str]:
        return list(self.concepts())

    def incomplete(self) -> list[str]:
        """Concepts of this revision with a file that is missing or of another size: a look at the folder, which reads
        nothing; `check` reads everything."""
        concepts = self.concepts().items()
        return [name for name, entry in concepts if not _sizes_fit(self.path / "concepts" / entry.folder, entry)]

    def remove(self, name: str) -> int:
        """Take a concept out of the model; returns the new revision. Its files stay: past revisions still open.

        Raises:
            MnemonError: there is no such concept, or the method cannot take one out.
        """
        if not self.can_remove:
            raise MnemonError(
                f"The method '{self.method_name}' cannot remove a concept, because all its concepts share "
                "one change of the weights: open the library at an earlier revision, or learn the others in a new one."
            )
        with self.lock():
            self._check_writable()
            self._entry(name)
            return self._append(self._next(REMOVE, name))

    def purge(self, name: str) -> int:
        """Take a concept out, and delete for good what it left: weights, features, checkpoints, previews, and in the
        history photos, hashes and settings; returns the new revision. That there was one stays in the history. Past
        revisions open without it. May be called again, also for a concept that was removed before.

        Raises:
            MnemonError: there was no such concept, or the method cannot take one out.
        """
        with self.lock():
            if name in self.names():
                self.remove(name)
            self._check_writable()
            past = [entry for entry in self._entries if entry.concept == name and entry.action in (LEARN, PURGED)]
            if not past:
                self._entry(name)
            for entry in past:
                if entry.action == LEARN:
                    stone = Entry(entry.number, PURGED, name, entry.time, entry.parent, was=entry.checksum)
                    self._entries[entry.number - 1] = write_entry(self.path, stone)
            delete_traces(self.path, name)
            clear_garbage(self.path, self._entries)
            return self.revision

    def check_name(self, name: str) -> None:
        """Raises:
        MnemonError: the name is taken. Worth asking before training.
        """
        if name in self.names():
            raise MnemonError(
                f"The library {self.path} already has a concept '{name}': choose another name. "
                "If its scores are missing, run `mnemon evaluate`."
            )

    def write_row(self, revision: int, row: Mapping[str, Any]) -> None:
        """Write the row of scores of `revision`, in place of any earlier one.

        Raises:
            MnemonError: the library has no such revision.
        """
        with self.lock():
            if not 0 <= revision <= self.revision:
                raise MnemonError(f"The library {self.path} has no revision {revision} to keep scores of.")
            write_row(self.path, revision, self.checksum_at(revision), row)

    def rows(self) -> dict[int, dict[str, Any]]:
        """Revision -> its row of scores, up to this revision, in order."""
        return read_rows(self.path, [self.checksum_at(revision) for revision in range(self.revision + 1)])

    @property
    def public_base(self) -> str:
        """The base as files and pages that go to others call it."""
        return public_base(self.base_name, self.family, self.fingerprint)

    @property
    def can_remove(self) -> bool:
        """Whether a concept can be taken out."""
        if self._can_remove is None:  # a library made before did not note it
            from mnemon.methods import METHODS

            self._can_remove = METHODS[self.method_name].can_remove
        return self._can_remove

    @property
    def revision(self) -> int:
        return len(self._entries)

    @property
    def checksum(self) -> str:
        """Of the last commit, and so of all before it; of library.json if there is none."""
        return self.checksum_at(self.revision)

    def about(self, entry: Entry, learned_at: int | None = None) -> dict[str, Any]:
        """What the files of the concept that `entry` brings say of themselves: enough to make the library again. Their
        `parent` is the folder of the last concept at the revision that it was learned at, by default this one."""
        before = list(active_entries(self._entries[:learned_at]).values())
        said = {"number": entry.number, "name": entry.concept, "noun": entry.class_noun, "facts": dict(entry.facts)}
        return {"library": self._header, "parent": before[-1].folder if before else "", **said}

    def checksum_at(self, revision: int) -> str:
        """As `checksum`, of an earlier revision."""
        if not revision:
            return self._root
        last = self._entries[revision - 1]
        return last.was or last.checksum

    @contextmanager
    def lock(self, finish: bool = True) -> Iterator[None]:
        """Keep other writers out, e.g. for the time of training; may be nested.

        Args:
            finish: commit the rest of concepts that were learned together, if that was interrupted; afterwards this
                library has them.

        Raises:
            MnemonError: another process is writing, or has written since this library was opened.
        """
        if self._locked:
            yield
            return
        read_header(self.path)  # who made the library may have withdrawn it: a lock would make the folder anew
        with exclusive(self.path / "lock"):
            read_header(self.path)
            newest = newest_entry(self.path)
            if self._at is None and newest != self.revision:
                raise MnemonError(
                    f"The library {self.path} is at revision {newest} by now, not {self.revision}: open it again."
                )
            current = self._at is None or newest == self.revision
            clear_garbage(self.path, self._entries if current else history_until(self.path, self._root, None))
            self._locked = True
            try:
                if finish and (self.path / CANDIDATE).is_dir():
                    self._finish_commit()
                yield
            finally:
                self._locked = False

    def _finish_commit(self) -> None:
        from mnemon.library.candidate import commit_candidate, is_unfinished
        from mnemon.library.library import Library

        if is_unfinished(self.path):
            library = Library.open(self.path)
            library._locked = True
            commit_candidate(library)
            if self._at is None:
                self._entries = library.history()

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
        return Entry(self.revision + 1, action, name, datetime.now(UTC).isoformat(timespec="seconds"), self.checksum)

    def _append(self, entry: Entry) -> int:
        self._entries.append(write_entry(self.path, entry))
        sync_folder(self.path)
        self._at = None
        return self.revision


def _sizes_fit(folder: Path, entry: Entry) -> bool:
    try:
        return all((folder / name).stat().st_size == file.bytes for name, file in entry.files.items())
    except OSError:
        return False
