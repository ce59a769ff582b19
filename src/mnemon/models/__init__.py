"""Bases: frozen text-to-image models, one file a family."""

import torch

from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.flux import Flux
from mnemon.models.flux2 import Flux2, Flux2Klein
from mnemon.models.loading import load
from mnemon.models.pipeline import PipelineBase
from mnemon.models.quantization import Quantization
from mnemon.models.qwen_image import QwenImage
from mnemon.models.sd import StableDiffusion
from mnemon.models.sd3 import StableDiffusion3
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.models.z_image import ZImage

__all__ = ["FAMILIES", "Base", "Conditioning", "Quantization", "Tokens", "load_base"]

FAMILIES: dict[str, type[PipelineBase]] = {
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
    return load(name, FAMILIES, device, dtype, quantization)
