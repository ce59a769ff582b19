"""One writer at a time: a lock of the operating system, which goes when its holder goes, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnemon.errors import MnemonError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. The file stays behind and means nothing: only the system's lock on it counts.

    Raises:
        MnemonError: somebody else holds it; the message says which process.
    """
    # A child process forked meanwhile shares the lock until it ends; one that was started by exec does not.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise MnemonError(
                f"The library {path.parent} is being written by process {holder}: "
                "wait until it has finished, or stop it."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
