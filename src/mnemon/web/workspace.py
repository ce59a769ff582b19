"""One library and what the page keeps beside it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnemon import api
from mnemon.errors import MnemonError
from mnemon.library import Library, is_library
from mnemon.methods import method_from
from mnemon.methods.base import Method
from mnemon.models import Base
from mnemon.models.prompt_syntax import escape
from mnemon.settings import DEFAULT_METHOD


class Workspace:
    """A library, its base, and a folder beside it for photos, images and exports.

        photos/NAME/{train,held-out}/   photos that were dropped, with their captions; unfinished.json
        images/                         what was drawn
        timeline/                       the same image of each concept at each revision
        exports/                        archives for other tools

    Args:
        library: its folder; it may not exist yet.
        base, method: of a new library.
    """

    def __init__(self, library: Path, base: str | None = None, method: str | None = None) -> None:
        self.library, self.base_name, self.method = library.resolve(), base, method
        self.folder = self.library.with_name(f"{self.library.name}-web")
        self._model = threading.Lock()
        self._doing = ""
        self._base: Base | None = None

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def shown(self) -> list[Path]:
        """The folders whose files a browser may ask for."""
        return [self.folder, self.library / "previews"]

    def opened(self, at: int | None = None) -> Library | None:
        """The library as it is now, or None if there is none yet."""
        return Library.open(self.library, at) if is_library(self.library) else None

    def new_method(self) -> Method:
        """The method of a library that is not there yet."""
        return method_from(self.method or DEFAULT_METHOD)

    def needed(self) -> Library:
        """The library as it is now.

        Raises:
            MnemonError: there is none yet.
        """
        if (opened := self.opened()) is None:
            raise MnemonError("There is no concept yet: teach one first.")
        return opened

    def called(self) -> dict[str, str]:
        """Concept -> how a prompt names it: "<sip> mug"."""
        opened = self.opened()
        return self.called_in(opened) if opened else {}

    @staticmethod
    def called_in(opened: Library) -> dict[str, str]:
        concepts = opened.concepts().items()
        nouns = {name: escape(entry.class_noun) if entry.class_noun else None for name, entry in concepts}
        return {name: opened.method.prompt_name(name, noun) for name, noun in nouns.items()}

    @property
    def side(self) -> int:
        """Pixels a side of the images; of the built-in base while none is loaded."""
        return self._base.resolution if self._base is not None else 64

    @property
    def samplers(self) -> tuple[str, ...]:
        """What the base can be sampled with, by diffusers' names; none while no base is loaded."""
        return self._base.schedule.samplers if self._base is not None else ()

    @property
    def doing(self) -> str:
        """What the model is busy with; "" if it is free."""
        return self._doing if self._model.locked() else ""

    @contextmanager
    def model(self, doing: str) -> Iterator[Base]:
        """The base, for one piece of work at a time: concepts are merged into its weights.

        Raises:
            MnemonError: it is in use.
        """
        if not self._model.acquire(blocking=False):
            raise MnemonError(f"The model is busy {self._doing}: wait until that has finished, or stop it.")
        try:
            self._doing = doing
            if self._base is None:
                self._base = api.open_base(self.base_name, self.library)
            yield self._base
        finally:
            self._model.release()
