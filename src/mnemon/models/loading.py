"""From a name to a frozen base: the built-in one, a diffusers folder, or a repository on the hub."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.configs import check_scheduler_class
from mnemon.models.fingerprint import fingerprint_of_folder, weight_files
from mnemon.models.flux import Flux
from mnemon.models.flux2 import Flux2, Flux2Klein
from mnemon.models.quantization import Quantization, quantize
from mnemon.models.qwen_image import QwenImage
from mnemon.models.sd import StableDiffusion
from mnemon.models.sd3 import StableDiffusion3
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.models.z_image import ZImage

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
INDEX = "model_index.json"
FAMILIES: dict[str, type[Base]] = {
    "sd": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "flux": Flux,
    "flux2": Flux2,
    "flux2-klein": Flux2Klein,
    "qwen-image": QwenImage,
    "z-image": ZImage,
}


def load_base(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantization: Quantization | None = None,
) -> Base:
    """Open a base: "world" (built in), a diffusers folder, or a hub id such as "owner/model".

    Everything is frozen and in evaluation mode; no safety checker is loaded. Folders come before hub ids.

    Args:
        dtype: of the weights, and of the computation.
        quantization: "8bit" or "4bit" (extra `quant`) quantizes the linear layers of denoiser and text encoders
            except target modules. A library trained on a quantized base opens on the full one, and the other way round.

    Raises:
        MnemonError: nothing of that name, not a diffusers pipeline, a pipeline of no known family, pickled or damaged
            weights, 4 bits without the extra. The message says which and what to do.
    """
    folder, family = _find(name)
    index = _json(folder / INDEX, name)
    for kind in _scheduler_classes(folder, index):
        check_scheduler_class([kind], name)
    absent = _absent(index)
    for component in family.components:
        if component not in absent:
            _check_weights(folder, component)
    pipeline, fingerprint = _open(folder, family, dtype, absent), fingerprint_of_folder(folder, family.components)
    if quantization:
        return quantize(family(pipeline, name, fingerprint), quantization, device)
    return family(pipeline.to(device), name, fingerprint)


def _find(name: str) -> tuple[Path, type[Base]]:
    if name == "world":
        folder = Path(str(files("mnemon.world") / "base"))
        if not (folder / INDEX).is_file():
            raise MnemonError("The built-in base is not in this installation: build it with 'mnemon base build'.")
        return folder, _family(folder / INDEX, name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, _family(folder / INDEX, name)
    if folder.is_file():
        raise MnemonError(
            f"'{name}' is a file, not a diffusers folder. Convert a single-file checkpoint once: "
            "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder), then give the folder."
        )
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise MnemonError(
            f"There is no base '{name}': give 'world', an existing diffusers folder, or a hub id such as 'owner/model'."
        )
    return _download(name)


def _family(index: Path, name: str) -> type[Base]:
    if not index.is_file():
        raise MnemonError(f"'{name}' is no diffusers pipeline: it has no {INDEX}.")
    return family_of(_json(index, name).get("_class_name"), name)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise MnemonError(f"'{name}' is no diffusers pipeline: its {path.name} cannot be read.")
    return value


def family_of(pipeline: Any, name: str) -> type[Base]:
    """The family of a diffusers pipeline's class, by its name; `name` is the base's.

    Raises:
        MnemonError: no family has that pipeline; the message lists those there are.
    """
    for family in FAMILIES.values():
        if family.pipeline_class.__name__ == pipeline:
            return family
    supported = ", ".join(f"{family.pipeline_class.__name__} ({key})" for key, family in FAMILIES.items())
    raise MnemonError(f"'{name}' is a {pipeline}, which mnemon does not know. Supported: {supported}.")


def _download(name: str) -> tuple[Path, type[Base]]:
    """The hub's snapshot; the family is known before gigabytes are fetched."""
    try:
        family = _family(Path(hf_hub_download(name, INDEX)), name)
        folder = family.pipeline_class.download(name, use_safetensors=True, **family.unused)
    except (OSError, ValueError) as error:
        raise MnemonError(
            f"There is no folder '{name}', and the hub did not give a pipeline of that id with safetensors weights: "
            f"{_first_line(error)}"
        ) from error
    return Path(folder), family


def _scheduler_classes(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """The classes that the index and the scheduler's own config name, before diffusers makes one of them."""
    config = folder / "scheduler" / "scheduler_config.json"
    named = [index.get("scheduler", [None, None])[-1]]
    if config.is_file():
        named.append(_json(config, str(folder)).get("_class_name"))
    return [kind for kind in named if isinstance(kind, str)]


def _absent(index: Mapping[str, Any]) -> dict[str, None]:
    """Parts the checkpoint comes without, as Stable Diffusion 3 may without T5."""
    return {part: None for part, origin in index.items() if isinstance(origin, list) and not any(origin)}


def _check_weights(folder: Path, component: str) -> None:
    """Only whole safetensors files are read; a pickle can run code when it is opened."""
    found = weight_files(folder, component)
    if not found:
        pickles = [path for pattern in PICKLES for path in (folder / component).glob(pattern)]
        if pickles:
            raise MnemonError(
                f"'{pickles[0]}' is a pickle, which can run code when opened; mnemon reads safetensors only. Choose a "
                "checkpoint with safetensors, or, if you trust this one, convert it once with diffusers: "
                "DiffusionPipeline.from_pretrained(folder).save_pretrained(new_folder)."
            )
        raise MnemonError(f"'{folder / component}' has no weights: expected a *model.safetensors file there.")
    for path in found:
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise MnemonError(
                f"'{path}' is damaged, cut short or a Git LFS pointer ({_first_line(error)}): fetch it again."
            ) from error


def _open(folder: Path, family: type[Base], dtype: torch.dtype, absent: dict[str, None]) -> Any:
    left_out = absent | family.unused
    try:
        with without_bars():
            return family.pipeline_class.from_pretrained(
                str(folder), use_safetensors=True, dtype=dtype, local_files_only=True, **left_out
            )
    except Exception as error:  # whatever diffusers and transformers raise about it
        raise MnemonError(f"The base in '{folder}' cannot be opened: {_first_line(error)}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the libraries' progress bars, of which there would be one for every part."""
    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
