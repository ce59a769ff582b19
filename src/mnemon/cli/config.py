"""Config files of `mnemon learn`, in TOML: what the command line says too, in sections, and the concepts."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from mnemon.errors import MnemonError
from mnemon.settings import nearest

OPTIONS = (
    "library", "base", "method", "weights", "memory", "score", "max_forgetting", "until", "check_every", "together",
    "preview_page",
)  # fmt: skip
"""Keys of the whole file, named as the command's options."""
PHOTOS = ("fit", "flip", "random_crop")
CONCEPT = ("photos", "name", "class_noun", "references", "num_class_images", "training")
SECTIONS = ("settings", "training", "photos", "concepts")
PATHS = ("library", "preview_page")


@dataclass(frozen=True)
class ConceptConfig:
    """One of `[[concepts]]`: as the options of the same names; `training` goes before that of the whole file."""

    photos: Path
    name: str | None = None
    class_noun: str | None = None
    references: Path | None = None
    num_class_images: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """A file.

    Attributes:
        options: values of the command's options.
        settings: of the method.
        training: of the training loop.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    concepts: Sequence[ConceptConfig] = ()


def read_config(path: Path) -> Config:
    """A config file. Paths in it are relative to its folder.

    Raises:
        MnemonError: it is missing or no TOML, or has something unknown; what and where is said.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MnemonError(f"The config '{path}' cannot be read: {error}.") from None
    _known(content, (*OPTIONS, *SECTIONS), f"The config '{path}'")
    tables = {name: _table(content.get(name, {}), f"[{name}] in '{path}'") for name in SECTIONS[:-1]}
    _known(tables["photos"], PHOTOS, f"[photos] in '{path}'")
    values = {name: content[name] for name in OPTIONS if name in content} | tables["photos"]
    concepts = content.get("concepts", [])
    if not isinstance(concepts, list):
        raise MnemonError(f"'concepts' in '{path}' is no list: begin each concept with [[concepts]].")
    home = path.resolve().parent
    return Config(
        _placed(values, home),
        tables["settings"],
        tables["training"],
        [_concept(one, home, f"Concept {number} in '{path}'") for number, one in enumerate(concepts, start=1)],
    )


def as_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """For an eager option: the file's values stand where the command line says nothing."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **read_config(path).options}
    return path


def _concept(entry: Any, home: Path, where: str) -> ConceptConfig:
    table = _table(entry, where)
    _known(table, CONCEPT, where)
    for name in ("photos", "references", "name", "class_noun"):
        if not isinstance(table.get(name, ""), str):
            raise MnemonError(f"{where}: {name} is no text: put it in quotation marks.")
    if not table.get("photos"):
        raise MnemonError(f'{where} has no photos: give their folder, as in photos = "photos/rex".')
    count = table.get("num_class_images", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise MnemonError(f"{where}: num_class_images is {count!r}; expected a whole number, 0 or more.")
    given = [name for name in ("photos", "references") if name in table]
    folders: dict[str, Any] = {name: home / Path(table[name]).expanduser() for name in given}
    training = _table(table.get("training", {}), f"{where}, training")
    values: dict[str, Any] = {**table, **folders, "training": training}
    return ConceptConfig(**values)


def _placed(values: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """With paths as they are from here; a base may be a name too."""
    placed = dict(values)
    for name in PATHS:
        if name in values:
            placed[name] = str(home / Path(str(values[name])).expanduser())
    base = values.get("base")
    if isinstance(base, str) and base != "world" and (home / Path(base).expanduser()).exists():
        placed["base"] = str(home / Path(base).expanduser())
    return placed


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MnemonError(f"{where} is {value!r}; expected a table of settings.")
    return value


def _known(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for key in table:
        if key not in names:
            raise MnemonError(f"{where} has no '{key}'{nearest(key, names)}.")
