"""Bases: frozen text-to-image models, one file a family."""

import torch

from mnemon.models.base import Base, Condition, Tokens
from mnemon.models.loading import load
from mnemon.models.sd import StableDiffusion
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.models.unet import UNetBase

__all__ = ["FAMILIES", "Base", "Condition", "Tokens", "load_base"]

FAMILIES: dict[str, type[UNetBase]] = {"sd": StableDiffusion, "sdxl": StableDiffusionXL}


def load_base(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Base:
    """Open a base: "world" (built in), a diffusers folder, or a hub id such as "owner/model".

    Everything is frozen and in evaluation mode; no safety checker is loaded. Folders come before hub ids.

    Raises:
        MnemonError: nothing of that name, not a diffusers pipeline, a pipeline of no known family, pickled or damaged
            weights. The message says which and what to do.
    """
    return load(name, FAMILIES, device, dtype)
