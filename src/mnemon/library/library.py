"""The library: concepts on disk. What lies where is said in `history`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.library import recomputable
from mnemon.library.concepts import read_concept, write_concept
from mnemon.library.entry import LEARN, Entry, newest_entry
from mnemon.library.header import is_library, write_header
from mnemon.library.history import History
from mnemon.methods import method_of_record, method_settings
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base


class Library(History):
    """A library at one revision of its history, with its concepts.

    Attributes:
        method: how its concepts are learned and composed.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], at: int | None) -> None:
        super().__init__(path, header, at)
        self.method: Method = method_of_record(self.method_name, header["method"]["settings"])

    @classmethod
    def create(cls, path: Path | str, base: "Base | Library", method: Method) -> "Library":
        """Make an empty library in a new or empty folder, on a base or on that of another library.

        Raises:
            MnemonError: there is something else in the folder already, or the method cannot work on the base.
        """
        if not isinstance(base, Library):
            method.check_base(base)
        name = base.base_name if isinstance(base, Library) else base.name
        described = {"name": method.name, "settings": method_settings(method), "can_remove": method.can_remove}
        write_header(Path(path), {"name": name, "family": base.family, "fingerprint": base.fingerprint}, described)
        return cls.open(path)

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

    def learned(self, stored: bool = False) -> list[TrainedConcept]:
        """The concepts of this revision in order of learning, freshly read from disk.

        Args:
            stored: their deltas stay in their files, and are read whenever they are asked for.

        Raises:
            MnemonError: a file of a concept is missing or was changed; the message names it.
        """
        return [self._read_learned(entry, stored) for entry in self.concepts().values()]

    def commit(
        self,
        learned: TrainedConcept,
        photos: Sequence[Mapping[str, str]] = (),
        settings: Mapping[str, Any] | None = None,
        references: Mapping[str, Tensor] | None = None,
        learned_at: int | None = None,
    ) -> int:
        """Add a concept; returns the new revision.

        Args:
            photos: {"source", "sha256"} of each.
            settings: how it was trained.
            references: features of images of it, as for `write_references`.
            learned_at: the revision that it was learned at, if that is not the last one.

        Raises:
            MnemonError: the name is taken, the library was opened at a past revision, or another process wrote to it.
        """
        with self.lock():
            self._check_writable()
            self.check_name(learned.name)
            entry = replace(
                self._next(LEARN, learned.name),
                class_noun=learned.class_noun,
                photos=[dict(photo) for photo in photos],
                settings=dict(settings or {}),
                facts=dict(learned.facts),
            )
            files = write_concept(self.path / "concepts" / entry.folder, learned, self.about(entry, learned_at))
            if references:
                recomputable.write_references(self.path, entry, references)
            return self._append(replace(entry, files=files))

    def write_references(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep features of images of a concept of this revision, so that it can be scored without any photo."""
        entry = self._entry(name)
        with self.lock():
            recomputable.write_references(self.path, entry, tensors)

    def references(self, name: str) -> dict[str, Tensor]:
        """What `write_references` kept for a concept of this revision; empty if nothing."""
        return recomputable.read_references(self.path, self._entry(name))

    def all_references(self) -> dict[str, dict[str, Tensor]]:
        """Concept -> features of its reference images, for those that have some."""
        references = {name: self.references(name) for name in self.names()}
        return {name: features for name, features in references.items() if features}

    def write_prompt_features(self, name: str, factors: Mapping[str, Tensor]) -> None:
        """Keep what prompts with a concept of this revision read (`evaluation.forecast.prompt_features`)."""
        entry = self._entry(name)
        with self.lock():
            recomputable.write_prompt_features(self.path, entry, factors)

    def prompt_features(self, name: str) -> dict[str, Tensor] | None:
        """What `write_prompt_features` kept for a concept of this revision; None if nothing."""
        return recomputable.read_prompt_features(self.path, self._entry(name))

    def write_fused(self, deltas: Mapping[str, Delta]) -> None:
        """Keep what `method.compose` gave at this revision, for methods whose fusion takes its time. One fusion is
        kept, the newest revision's; others are computed when they are asked for."""
        with self.lock():
            if self.revision == newest_entry(self.path):
                recomputable.write_fused(self.path, self.revision, self.checksum, deltas)

    def fused(self) -> dict[str, Delta] | None:
        """What `write_fused` kept of this revision; None if nothing.

        Raises:
            MnemonError: the file is damaged, or of another commit.
        """
        return recomputable.read_fused(self.path, self.revision, self.checksum)

    def _read_learned(self, entry: Entry, stored: bool) -> TrainedConcept:
        folder = self.path / "concepts" / entry.folder
        return read_concept(folder, entry.concept, entry.class_noun, entry.files, entry.facts, entry.remedy, stored)
