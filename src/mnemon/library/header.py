"""library.json: the format of a library, the base it was made on, and its method with all settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.library.hashed import RESTORE, read_hashed, write_hashed

FORMAT = 1
_HEADER = "library.json"
CONCEPTS, CLASSES = "concepts", "classes"
"""What a library holds; a header that does not say is one of concepts."""


def write_header(library: Path, base: Mapping[str, str], method: Mapping[str, Any], kind: str = CONCEPTS) -> None:
    """Make a new or empty folder a library.

    Args:
        base: {"name", "family", "fingerprint"}.
        method: {"name", "settings", "can_remove"}.

    Raises:
        MnemonError: there is something else in the folder already.
    """
    if is_library(library):
        raise MnemonError(f"There is already a library in {library}: open it, or choose another folder.")
    # A creation that was cut short leaves library.json.part; dot files belong to the file manager.
    if library.exists() and (not library.is_dir() or set(library.glob("[!.]*")) - {library / f"{_HEADER}.part"}):
        raise MnemonError(f"{library} is not an empty folder: choose another place for the library.")
    said = {} if kind == CONCEPTS else {"kind": kind}
    write_hashed(library / _HEADER, {"format": FORMAT, **said, "base": dict(base), "method": dict(method)})


def is_library(path: Path | str) -> bool:
    """Whether there is a library in the folder."""
    return (Path(path) / _HEADER).exists()


def read_header(library: Path) -> dict[str, Any]:
    """Raises:
    MnemonError: there is no library, its header is damaged, or another version of mnemon wrote it.
    """
    if not (library / _HEADER).is_file():
        what = "is no library" if library.exists() else "does not exist"
        raise MnemonError(f"{library} {what}: give the folder of a library, or make one with `mnemon learn`.")
    header = read_hashed(library / _HEADER)
    if header.get("format") != FORMAT:
        raise MnemonError(
            f"The library {library} has format {header.get('format')}, this mnemon reads format {FORMAT}: "
            "use the version of mnemon that wrote it, or a newer one."
        )
    texts = [of.get(key) for of, key in _texts(header)]
    if not all(isinstance(text, str) for text in texts):
        raise MnemonError(f"The file {library / _HEADER} does not say which base and method it is of: {RESTORE}.")
    return header


def _texts(header: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """Where a header has to have text."""
    base, method = ({} if not isinstance(header.get(key), dict) else header[key] for key in ("base", "method"))
    found: list[tuple[Mapping[str, Any], str]] = [(base, "name"), (base, "family"), (base, "fingerprint")]
    return [*found, (method if isinstance(method.get("settings"), dict) else {}, "name")]


def check_kind(library: Path, header: Mapping[str, Any], kind: str) -> None:
    """Raises:
    MnemonError: the library is of the other kind; which command opens it is said.
    """
    found = header.get("kind", CONCEPTS)
    if found != kind:
        command = "mnemon classify" if found == CLASSES else "mnemon learn, generate and the like"
        raise MnemonError(f"The library {library} is one of {found}, not of {kind}: use {command}.")
