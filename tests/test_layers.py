"""Imports run only downwards: a room knows nothing of the rooms above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnemon

LAYERS = [
    {"cli"},
    {"web"},
    {"benchmark"},
    {"api"},
    {"classification", "planning"},
    {"training", "report"},
    {"evaluation", "export"},
    {"sampling"},
    {"library"},
    {"methods"},
    {"adapters"},
    {"models", "data", "world"},
    {"settings", "settings_docs"},
    {"names", "verdict"},
    {"files", "tensor_files", "errors", "seeding"},
]
HEIGHT = {room: -depth for depth, layer in enumerate(LAYERS) for room in layer}
PACKAGE = Path(mnemon.__file__).parent


def imported(file: Path) -> Iterator[str]:
    """The rooms of mnemon that a file imports, in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = node.module == "mnemon"
            names = [f"mnemon.{alias.name}" for alias in node.names] if inner else [node.module]
        yield from (name.split(".")[1] for name in names if name.startswith("mnemon."))


@pytest.mark.parametrize("room", sorted(HEIGHT))
def test_a_room_imports_nothing_from_above(room):
    files = [*(PACKAGE / room).rglob("*.py"), *PACKAGE.glob(f"{room}.py")]
    # The recipe that trains the built-in base works with the models it makes.
    files = [file for file in files if "recipe" not in file.relative_to(PACKAGE).parts]
    upwards = [
        f"{file.relative_to(PACKAGE)} imports mnemon.{name}"
        for file in files
        for name in imported(file)
        if HEIGHT.get(name, 1) > HEIGHT[room]
    ]
    assert not upwards
