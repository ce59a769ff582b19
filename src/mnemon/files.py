"""Files that are written whole or not at all, and their hashes. Quick to import: see `tensor_files` for tensors."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mnemon.errors import MnemonError, WriteError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo


_UNFINISHED = re.compile(r".+\.part|\.tmp[A-Za-z0-9]{6}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block `path` is written, by whatever library: what that raises becomes one sentence.

    Raises:
        WriteError: it could not be written.
    """
    try:
        yield
    except MnemonError:
        raise
    except Exception as error:  # of any type: safetensors, for one, has its own for a full disk
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise WriteError(
            f"'{path}' could not be written ({reason}): make room on its disk, or look whether you may write there."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: flushed to disk and renamed to `path` when the block ends without an error.

    Raises:
        WriteError: it could not be written; what was at `path` is as it was.
    """
    aside = path.with_name(path.name + ".part")
    with writing(path):
        make_folder(path.parent)
        try:
            mode = _default_mode(aside)
            yield aside
            _set_mode(aside, mode)
            with open(aside, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
        except Exception:
            with suppress(OSError):
                aside.unlink()  # on a full disk its room is wanted
            raise
        sync_folder(path.parent)


def check_writable(folder: Path) -> None:
    """Make `folder` if it is not there, and see that files can be written to it.

    Raises:
        WriteError: they cannot.
    """
    probe = folder / ".writable"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill: renamed to `path`, which may be an empty folder, when the block ends without an
    error, else removed. Its files get the mode of new files.

    Raises:
        WriteError: it cannot be made there, or be put in the place of the current folder.
    """
    with writing(path):
        if path.exists() and path.samefile(Path.cwd()):
            raise WriteError(f"'{path}' is the folder that you are in, which cannot be replaced: name one inside.")
        aside = path.with_name(f".{path.name}.part")
        make_folder(path.parent)
        shutil.rmtree(aside, ignore_errors=True)  # of a call that was cut short
        aside.mkdir()
    try:
        yield aside
        with writing(path):
            set_default_modes(aside)
            if path.exists():
                path.rmdir()
            os.replace(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, its ends of lines as they are."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_png(path: Path, image: "Image", info: "PngInfo | None" = None) -> None:
    with replacing(path) as aside:
        image.save(aside, format="PNG", pnginfo=info)


def set_default_modes(folder: Path) -> None:
    """Give every file below `folder` the mode that the umask gives new files there: safetensors makes files that only
    their owner can read, also when it is called by diffusers or transformers."""
    probe = folder / ".mode"
    mode = _default_mode(probe)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            _set_mode(path, mode)


def _default_mode(path: Path) -> int:
    """The mode of a new file at `path`, which is made, and empty. The umask itself could be read only by setting it,
    for all threads."""
    path.unlink(missing_ok=True)
    path.touch()
    return path.stat().st_mode


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode != mode:  # some file systems have one mode for all files and refuse to set it
        path.chmod(mode)


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, so that they survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with writing(folder):
            folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what writing in `folder` left when it was killed: half files of ours, and of safetensors'. For those who
    know that nobody writes there now."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut; Windows opens no folders."""
    if os.name == "nt":
        return
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
