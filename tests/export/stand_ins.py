"""Empty modules in the place of packages that other tools import and that what we run of them does not need."""

import importlib.machinery
import sys
import types
from typing import Any
from unittest.mock import MagicMock

import diffusers  # noqa: F401 (it and transformers look for torchvision when imported, and must find none)
import transformers  # noqa: F401


class _Finder:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        known = name in self.names or name.split(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def stand_in(*names: str) -> None:
    """From now on these packages, or modules of packages, can be imported, and hold nothing."""
    sys.meta_path.insert(0, _Finder(names))  # type: ignore[arg-type]
