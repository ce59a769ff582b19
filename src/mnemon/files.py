"""Files that are written whole or not at all, and the hashes of files and of named tensors."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: flushed to disk and renamed to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    yield aside
    with open(aside, "r+b") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill: renamed to `path`, which may be an empty folder, when the block ends without an
    error, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of a call that was cut short
    aside.mkdir()
    try:
        yield aside
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


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    packed = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as aside:
        # None, not {}: with an empty dictionary and no tensors, safetensors 0.8 writes a header that it cannot read.
        save_file(packed, str(aside), metadata=dict(metadata) if metadata else None)


def write_png(path: Path, image: Image.Image, info: PngInfo | None = None) -> None:
    with replacing(path) as aside:
        image.save(aside, format="PNG", pnginfo=info)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut; Windows opens no folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor], head: str = "", end: str = "\n") -> str:
    """sha256 (hex) over `head`, then names, dtypes, shapes and bytes, in order of the names.

    Args:
        end: what stands between a tensor's shape and its bytes.
    """
    digest = hashlib.sha256(head.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}{end}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
