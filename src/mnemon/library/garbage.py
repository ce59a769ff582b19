"""What interrupted commits left in a library's folder."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from mnemon.library.entry import Entry

_FOLDERS = ("history", "concepts", "references", "prompts", "scores", "fused")


def clear_garbage(library: Path, entries: Iterable[Entry]) -> None:
    """Remove what belongs to no commit; for the one who holds the lock. `entries` are all commits."""
    for name in _FOLDERS:
        for aside in (library / name).glob("*.part"):
            aside.unlink()
    folders = {entry.folder for entry in entries}
    for folder in (library / "concepts").glob("*"):
        if folder.name not in folders:
            shutil.rmtree(folder)
    for name in ("references", "prompts"):
        for features in (library / name).glob("*.safetensors"):
            if features.stem not in folders:
                features.unlink()
