"""Hashes of large files, remembered with the files' size and time: a base of many gigabytes is read for its hash once,
not at every command."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from mnemon.errors import WriteError
from mnemon.files import file_sha256, write_json

LARGE = 32 * 2**20  # bytes; smaller files are hashed in no time
SETTLED = 2.0  # seconds; a file that changes within the tick of a clock could keep its time
MOST = 1000  # files


def cached_sha256(path: Path) -> str:
    """The hash of a file's bytes, as when it was last read, if its size, time and place on the disk are the same.

    They are remembered in `mnemon/hashes.json` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`); where
    that cannot be written nothing is.
    """
    facts = path.stat()
    if facts.st_size < LARGE:
        return file_sha256(path)
    key, state = str(path.resolve()), [facts.st_size, facts.st_mtime_ns, facts.st_ino]
    known = _read()
    if key in known and known[key][:-1] == state:
        return str(known[key][-1])
    digest = file_sha256(path)
    if time.time() - facts.st_mtime > SETTLED:
        kept = dict(list({**_read(), key: [*state, digest]}.items())[-MOST:])
        with suppress(OSError, WriteError):
            write_json(_file(), kept)
    return digest


def _read() -> dict[str, list[int | str]]:
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    right = isinstance(content, dict) and all(isinstance(one, list) and len(one) == 4 for one in content.values())
    return content if right else {}


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnemon" / "hashes.json"
