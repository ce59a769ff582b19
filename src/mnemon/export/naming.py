"""How the tools that read our files spell a layer, a text encoder and a family: one table, a line for each family.

A target module is a path in the denoiser (`mid_block.….attn2.to_k`) or `<text encoder>.<path>`, as `every_layer` has it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mnemon.errors import MnemonError
from mnemon.models import Base

KOHYA, DIFFUSERS, COMFY = "kohya", "diffusers", "comfy"
CLIP = ("clip_l", "clip_g", "clip_h")
LANGUAGE_MODEL = "language model"
BY_WIDTH = {2560: "qwen3_4b", 3584: "qwen25_7b", 4096: "qwen3_8b", 5120: "mistral3_24b"}
"""ComfyUI's names of the language models that read prompts, by the width of their embeddings."""


@dataclass(frozen=True)
class Naming:
    """What other tools call a family and its parts."""

    architecture: str
    """`modelspec.architecture`."""
    formats: tuple[str, ...]
    """Dialects of LoRA files that somebody reads for this family."""
    encoders: Mapping[str, str]
    """Text encoder -> ComfyUI's name of it, which is also the key of its vectors in an embedding file."""
    denoiser: str = "transformer"
    """Attribute of the diffusers pipeline that holds the denoiser."""
    kohya: Mapping[str, str] | None = None
    """Part -> prefix in kohya's dialect."""
    base_version: str | None = None
    """`ss_base_model_version`."""
    unmapped: str | None = None
    """Layers of the denoiser, as a regular expression, whose names in diffusers ComfyUI does not map to its own."""


_UNET = (KOHYA, DIFFUSERS)
_TRANSFORMER = (COMFY, DIFFUSERS)
_ONE = {"unet": "lora_unet", "text_encoder": "lora_te"}
_TWO = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
_PAIR = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_READER = {"text_encoder": LANGUAGE_MODEL}
_FLUX2 = r"time_guidance_embed\..+|.+_modulation.*\.linear|.+\.ff(_context)?\.linear_(in|out)"

NAMINGS: dict[str, Naming] = {
    "sd": Naming("stable-diffusion-v1", _UNET, {"text_encoder": "clip_l"}, "unet", _ONE, "sd_v1"),
    "sd2": Naming("stable-diffusion-v2", _UNET, {"text_encoder": "clip_h"}, "unet", _ONE, "sd_v2"),
    "sdxl": Naming("stable-diffusion-xl-v1-base", _UNET, _PAIR, "unet", _TWO, "sdxl_base_v1-0"),
    "sd3": Naming("stable-diffusion-3", _TRANSFORMER, {**_PAIR, "text_encoder_3": "t5xxl"}),
    "flux": Naming("flux-1", _TRANSFORMER, {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}),
    "flux2": Naming("flux-2", _TRANSFORMER, _READER, unmapped=_FLUX2),
    "flux2-klein": Naming("flux-2-klein", _TRANSFORMER, _READER, unmapped=_FLUX2),
    "qwen-image": Naming("qwen-image", _TRANSFORMER, _READER),
    "z-image": Naming("z-image", _TRANSFORMER, _READER),
}


def naming_of(base: Base) -> Naming:
    """The family's line of the table; Stable Diffusion 2.x, known by its wider text encoder, has one of its own.

    Raises:
        MnemonError: no tool's names for this family are known.
    """
    family = base.family
    if family == "sd" and base.embedding_statistics()["text_encoder"][0] == 1024:
        family = "sd2"
    if family not in NAMINGS:
        known = ", ".join(NAMINGS)
        raise MnemonError(f"How other tools name the family '{base.family}' is not known here; known: {known}.")
    return NAMINGS[family]


def layer_key(naming: Naming, target: str, format: str) -> str:
    """A target module as the dialect writes it, without the ending that says which tensor of it is meant."""
    part, path = split_target(naming, target)
    if naming.encoders.get(part) in CLIP and not path.startswith("text_projection"):
        path = f"text_model.{path}"  # readers know CLIP with this level, which newer versions of transformers lack
    if format == KOHYA:
        assert naming.kohya is not None
        return f"{naming.kohya[part]}_{path.replace('.', '_')}"
    return f"{part}.{path}"


def mapped_by_comfyui(naming: Naming, target: str) -> bool:
    """Whether ComfyUI finds the layer in its own model by the name that its dialect here gives it: a denoiser's layer
    with few exceptions, CLIP's, no language model's and not T5's. Checked against its loader's code."""
    part, path = split_target(naming, target)
    if naming.kohya is not None:
        return True
    if part != naming.denoiser:
        return naming.encoders[part] in CLIP and path.startswith("encoder.")
    return naming.unmapped is None or not re.fullmatch(naming.unmapped, path)


def split_target(naming: Naming, target: str) -> tuple[str, str]:
    """(part of the pipeline, module path in it)."""
    part, _, path = target.partition(".")
    return (part, path) if part in naming.encoders else (naming.denoiser, target)


def placeholder_tokens(name: str, vectors: int) -> list[str]:
    """A token as tokenizers know it, a word for each of its vectors, as diffusers numbers them."""
    return [f"<{name}>_{index}" if index else f"<{name}>" for index in range(vectors)]


def embedding_key(naming: Naming, encoder: str, width: int) -> str:
    """The key of an encoder's vectors in an embedding file, as ComfyUI looks for it."""
    key = naming.encoders[encoder]
    return BY_WIDTH.get(width, encoder) if key == LANGUAGE_MODEL else key
