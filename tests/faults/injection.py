"""Something done instead of the n-th operation on files."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mnemon.tensor_files

PLACES: dict[str, tuple[Any, str]] = {
    "rename": (os, "replace"),
    "move": (os, "rename"),
    "fsync": (os, "fsync"),
    "unlink": (os, "unlink"),
    "mkdir": (os, "mkdir"),
    "rmdir": (os, "rmdir"),
    "open": (Path, "touch"),
    "write": (Path, "write_bytes"),
    "write tensors": (mnemon.tensor_files, "save_file"),
}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS)


@contextmanager
def instead_of(number: int, happens: Callable[[], object], places: Any = PLACES) -> Iterator[list[str]]:
    """Within the block `happens` comes before the operation with this number; yields the operations so far."""
    done: list[str] = []

    def counting(name: str, real: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            if len(done) == number:
                happens()
            return real(*args, **kwargs)

        return operation

    patches = [
        patch.object(where, call, counting(name, getattr(where, call))) for name, (where, call) in places.items()
    ]
    for one in patches:
        one.start()
    try:
        yield done
    finally:
        for one in patches:
            one.stop()


def failing(number: int) -> Callable[[], object]:
    code = ERRORS[number % len(ERRORS)]

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail
