"""One writer at a time: a lock of the operating system, which goes when its holder goes, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mnemon.errors import MnemonError
from mnemon.files import writing


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. The file stays behind and means nothing: only the system's lock on it counts.

    `<path>.pid` names the holder: Windows lets nobody read a file that is locked.

    Raises:
        MnemonError: somebody else holds it; the message says which process. Or the file is a link, or cannot be locked.
    """
    holder = path.with_name(f"{path.name}.pid")
    for file in (path, holder):
        if file.is_symlink():  # whoever writes through it writes somewhere else
            raise MnemonError(f"{file} is a link: remove it, mnemon makes the file anew.")
    lock = FileLock(path, timeout=0, mode=0o644)
    try:
        lock.acquire()
    except Timeout:
        raise MnemonError(
            f"The library {path.parent} is being written by process {_pid(holder)}: "
            "wait until it has finished, or stop it."
        ) from None
    except OSError as error:
        raise MnemonError(
            f"The library {path.parent} cannot be locked for writing ({error.strerror or error}): its file system has "
            "no locks, or you may not write there. Copy it to a disk of your own."
        ) from error
    try:
        with writing(holder):
            holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def _pid(holder: Path) -> str:
    with suppress(OSError):
        return holder.read_text(errors="replace").strip() or "unknown"
    return "unknown"
