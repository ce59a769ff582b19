"""Libraries, bases and encoders by their names."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, encoders_for
from mnemon.library import History, Library, is_library
from mnemon.methods import method_from, method_settings
from mnemon.methods.base import Method
from mnemon.models import Base, lasting_name, load_base
from mnemon.models.loading import find_base
from mnemon.models.profiles import SMALL, Profile
from mnemon.models.quantization import PRECISIONS, Weights
from mnemon.models.transformer import TransformerBase
from mnemon.planning import read_configs
from mnemon.settings import DEFAULT_METHOD, RENAMED
from mnemon.world import base_folder

PARTS = ("training", "previews", "concepts", "references", "history", "scores", "fused", "candidate")
"""The folders of a library."""


def device_of() -> str:
    """Where bases are opened: on the GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def base_named(base: str | Base, weights: Weights | None = None) -> Base:
    """A base by its name; folders and files by their whole path, which stays true wherever a library is opened from.

    Without `weights` it is opened on a GPU as its profile says, on a CPU in fp32.
    """
    if isinstance(base, Base):
        return base
    dtype, quantization = PRECISIONS[weights or _usual_weights(base)]
    return load_base(lasting_name(base), device_of(), dtype, quantization)


def _usual_weights(name: str) -> Weights:
    return "fp32" if device_of() == "cpu" else profile_named(name).weights


def profile_named(name: str) -> Profile:
    """The profile of a base, by its configs alone.

    Raises:
        MnemonError: there is no base of that name, or its configs are not understood.
    """
    return SMALL if name == "world" else read_configs(str(find_base(name)[0])).empty_model(torch.bfloat16).profile


def find_weights(library: History | None) -> Weights | None:
    """The precision of the weights on which a library's newest concept was learned or imported, if it is known."""
    for entry in reversed(library.history() if library else []):
        if (weights := entry.settings.get("weights")) in PRECISIONS:
            return weights
    return None


def open_base(
    base: str | None, library: str | Path, weights: Weights | None = None, offload_text: bool = False
) -> Base:
    """A base by its name, or else the library's own (of a new one, the built-in).

    Args:
        weights: how they are kept: whole in fp32 or bf16, or linear layers packed in 8 or 4 bits (extra `quant`). By
            default as the library's newest concept was learned; on a GPU else as the base's profile says.
        offload_text: keep large text encoders on the CPU; they move to the device only for prompts that are not cached.

    Raises:
        MnemonError: there is no such base, 4 bits without the extra, or text encoders that do not offload.
    """
    opened = History.open(library) if is_library(library) else None
    name = base or (opened.base_name if opened else "world")
    found = base_named(name, weights or find_weights(opened))
    if offload_text:
        if not isinstance(found, TransformerBase):
            raise MnemonError(
                f"The text encoders of a {found.family} base are small and stay: leave out --offload-text."
            )
        found.offload_text_encoders()
    return found


def base_of(library: Library, base: str | Base | None) -> Base:
    """The base that the library was made on, or `base`, if that is the same one at another place."""
    found = base_named(base or library.base_name, find_weights(library))
    library.check_base(found)
    return found


def method_for(method: str | Method | None, settings: Mapping[str, Any] | None, base: Base) -> Method:
    """The method of a new library on `base`: the rates that are not among the settings are those of its profile.

    Raises:
        MnemonError: as `method_from`.
    """
    if isinstance(method, Method):
        return method
    name, given = method or DEFAULT_METHOD, {RENAMED.get(key, key): value for key, value in (settings or {}).items()}
    rates = base.profile.rates(method_settings(method_named(name, settings)))
    return method_from(name, {**rates, **given}) if set(rates) - set(given) else method_from(name, settings)


def method_named(method: str | Method | None, settings: Mapping[str, Any] | None = None) -> Method:
    """A method as it is, or by its name, with these settings and otherwise its own defaults."""
    return method if isinstance(method, Method) else method_from(method or DEFAULT_METHOD, settings)


def encoders_of(base: Base) -> Encoders:
    """The encoders that belong to the base: its own folder's, or CLIP and DINO."""
    folder = base_folder() if base.name == "world" else Path(base.name)
    return encoders_for(folder if folder.is_dir() else None, base.device)


@contextmanager
def opened_or_created(
    path: Path, base: str | Base | None, method: str | Method | None
) -> Iterator[tuple[Library, Base]]:
    """The library, and the base it belongs to. A new library is removed again if the block fails and has left nothing
    in it; training that was begun is kept."""
    if is_library(path):
        opened = Library.open(path)
        _check_method(opened, method)
        yield opened, base_of(opened, base)
        return
    found = base_named(base or "world")
    chosen = method_for(method, None, found)
    opened = Library.create(path, found, chosen)
    try:
        yield opened, found
    except Exception as error:
        with suppress(MnemonError), Library.open(path).lock():  # another process may have begun to write
            if Library.open(path).revision == 0:
                _remove_empty(path, error)
        raise


def _remove_empty(path: Path, error: Exception) -> None:
    """Remove a library without concepts, and its folder unless there is something else in it, but only if it has no
    file of a training: then the error says what is kept."""
    folders = [folder for name in PARTS if (folder := path / name).exists()]
    if any(file.is_file() for folder in folders for file in folder.rglob("*")):
        error.add_note(
            f"The library {path} is kept, though it has no concept yet: with other settings of the method, choose "
            "another folder or delete this one."
        )
        return
    for folder in folders:
        shutil.rmtree(folder)
    for name in ("library.json", "lock", "lock.pid"):
        (path / name).unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def _check_method(library: Library, method: str | Method | None) -> None:
    """A library keeps the method it was made with, and its settings."""
    own = library.method
    if method in (None, own.name, own):
        return
    other = method_from(method) if isinstance(method, str) else method
    assert other is not None
    what = f"the method '{own.name}', not '{other.name}'"
    if type(other) is type(own):
        ours, theirs = method_settings(own), method_settings(other)
        what = ", ".join(f"{key}={ours[key]}, not {key}={theirs[key]}" for key in ours if ours[key] != theirs[key])
    raise MnemonError(f"The library {library.path} was made with {what}, and keeps to it: choose another folder.")
