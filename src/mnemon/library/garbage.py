"""What interrupted commits left in a library's folder."""

import shutil
from pathlib import Path

from mnemon.library.entry import history_until

_FOLDERS = ("history", "concepts", "references", "scores", "fused")


def clear_garbage(library: Path, root: str) -> None:
    """Remove what belongs to no commit; for the one who holds the lock. `root` is the checksum of library.json."""
    for name in _FOLDERS:
        for aside in (library / name).glob("*.part"):
            aside.unlink()
    folders = {entry.folder for entry in history_until(library, root, None)}
    for folder in (library / "concepts").glob("*"):
        if folder.name not in folders:
            shutil.rmtree(folder)
    for features in (library / "references").glob("*.safetensors"):
        if features.stem not in folders:
            features.unlink()
