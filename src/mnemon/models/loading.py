"""From a name to a frozen base: the built-in one, a diffusers folder, a checkpoint in one file, or a repository on the
hub."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.flux import Flux
from mnemon.models.flux2 import Flux2, Flux2Klein
from mnemon.models.pipeline_folder import INDEX, first_line, open_folder, read_config
from mnemon.models.quantization import Quantization, quantize
from mnemon.models.qwen_image import QwenImage
from mnemon.models.sd import StableDiffusion
from mnemon.models.sd3 import StableDiffusion3
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.models.single_file import open_single_file
from mnemon.models.z_image import ZImage
from mnemon.names import HUB_ID

ASKED = re.compile(r"(.+):(\w+)")
"""A name, and after a colon what its files leave open: the variant of a folder, the prediction type of a file."""
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
    """Open a base: "world" (built in), a diffusers folder, a checkpoint in one file, or a hub id such as "owner/model".

    Everything is frozen and in evaluation mode; no safety checker is loaded. Folders come before hub ids.

    Args:
        name: "folder:fp16" reads the variant fp16 where there are several, "file.safetensors:v_prediction" says what a
            checkpoint of Stable Diffusion 2 predicts.
        dtype: of the weights, and of the computation.
        quantization: "8bit" or "4bit" (extra `quant`) quantizes the linear layers of denoiser and text encoders
            except target modules. A library trained on a quantized base opens on the full one, and the other way round.

    Raises:
        MnemonError: nothing of that name, not a diffusers pipeline, a pipeline of no known family, a config that is not
            understood, pickled or damaged weights, 4 bits without the extra. The message says which and what to do.
    """
    path, asked = find_base(name)
    if path.is_file():
        family, pipeline, fingerprint = open_single_file(path, dtype, asked)
    else:
        family = family_of(read_config(path / INDEX, name).get("_class_name"), name)
        pipeline, fingerprint = open_folder(path, family, dtype, asked)
    if quantization:
        return quantize(family(pipeline, name, fingerprint), quantization, device)
    return family(pipeline.to(device), name, fingerprint)


def find_base(name: str) -> tuple[Path, str]:
    """The folder or file of a base, which is fetched if it lies on the hub, and what is asked of it after a colon.

    Raises:
        MnemonError: there is none of that name.
    """
    if name == "world":
        folder = Path(str(files("mnemon.world") / "base"))
        if not (folder / INDEX).is_file():
            raise MnemonError("The built-in base is not in this installation: build it with 'mnemon base build'.")
        return folder, ""
    for given, asked in _readings(name):
        path = Path(given).expanduser()
        if path.exists():
            return path, asked
        if HUB_ID.fullmatch(given) and not given.startswith("."):
            return _download(given, asked), asked
    raise MnemonError(
        f"There is no base '{name}': give 'world', an existing diffusers folder, a .safetensors checkpoint of Stable "
        "Diffusion, or a hub id such as 'owner/model'."
    )


def _readings(name: str) -> list[tuple[str, str]]:
    """The name as a whole, and as one with something asked of it after a colon."""
    asking = ASKED.fullmatch(name)
    return [(name, ""), *([(asking[1], asking[2])] if asking else [])]


def lasting_name(name: str) -> str:
    """The name of a base with folders and files by their whole path, which stays true wherever it is opened from."""
    for given, asked in _readings(name):
        if name != "world" and Path(given).expanduser().exists():
            return str(Path(given).expanduser().resolve()) + (f":{asked}" if asked else "")
    return name


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


def _download(name: str, variant: str) -> Path:
    """The hub's snapshot; the family is known before gigabytes are fetched."""
    try:
        family = family_of(read_config(Path(hf_hub_download(name, INDEX)), name).get("_class_name"), name)
        return Path(
            family.pipeline_class.download(name, use_safetensors=True, variant=variant or None, **family.unused)
        )
    except (OSError, ValueError) as error:
        raise MnemonError(
            f"There is no folder '{name}', and the hub did not give a pipeline of that id with safetensors weights: "
            f"{first_line(error)} Weights that are there as a variant only are named '{name}:fp16'."
        ) from error
