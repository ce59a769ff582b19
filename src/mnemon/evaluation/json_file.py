"""A JSON object on disk, read with messages that name the file and the entry that is wrong."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError


@dataclass(frozen=True)
class JsonFile:
    """The object in `path`. Every `MnemonError` here says which file, which entry, and what it should be."""

    path: Path
    value: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "JsonFile | None":
        """None if there is no such file.

        Raises:
            MnemonError: it cannot be read or holds something else than an object.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise MnemonError(f"{path} cannot be read as JSON ({error}): run that job again.") from None
        if not isinstance(value, dict):
            raise MnemonError(f"{path} should hold a JSON object, not a {type(value).__name__}: run that job again.")
        return cls(path, value)

    def text(self, key: str) -> str:
        return str(self._of(key, str, "a text"))

    def whole(self, key: str) -> int:
        return int(self._of(key, int, "a whole number"))

    def mapping(self, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._of(key, dict, "an object")
        return found

    def objects(self, key: str) -> list[dict[str, Any]]:
        """A list of objects, at least one."""
        found: list[Any] = self._of(key, list, "a list of objects")
        if not found or not all(isinstance(one, dict) for one in found):
            raise self._wrong(key, "a list of objects, at least one")
        return found

    def number(self, key: str) -> float | None:
        """None where it is null or not there."""
        return None if self.value.get(key) is None else float(self._of(key, int | float, "a number"))

    def numbers(self, key: str) -> dict[str, float]:
        """An object of numbers by name; empty where it is not there."""
        found = self.value.get(key) or {}
        if not isinstance(found, dict) or not all(isinstance(one, int | float) for one in found.values()):
            raise self._wrong(key, "a number by name")
        return {name: float(one) for name, one in found.items()}

    def _of(self, key: str, kind: Any, said: str) -> Any:
        found = self.value.get(key)
        if not isinstance(found, kind) or isinstance(found, bool):
            raise self._wrong(key, said)
        return found

    def _wrong(self, key: str, said: str) -> MnemonError:
        has = repr(self.value[key])[:80] if key in self.value else "nothing"
        return MnemonError(f"{self.path} needs '{key}' as {said}, it has {has}: run that job again.")
