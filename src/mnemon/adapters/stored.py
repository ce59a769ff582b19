"""Deltas that stay in their file: each is read when it is asked for, so that many concepts need the memory of one
layer."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import safe_open

from mnemon.adapters.delta import Delta
from mnemon.adapters.files import load_deltas, split_key


class StoredDeltas(Mapping[str, Delta]):
    """The deltas of a safetensors file, by target module. Every look reads the file anew: ask for each once.

    Raises:
        MnemonError: when one is asked for, as `load_deltas`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, list[str]] = {}
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                self._keys.setdefault(split_key(key)[0], []).append(key)

    def __getitem__(self, target: str) -> Delta:
        keys = self._keys[target]
        with safe_open(str(self._path), framework="pt") as file:
            return load_deltas({key: file.get_tensor(key) for key in keys})[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
