"""What other tools call a layer, a text encoder and a family: one table, a line per family.

A target module is a path in the denoiser (`mid_block.….attn2.to_k`) or `<text encoder>.<path>`, as in `every_layer`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mnemon.errors import MnemonError
from mnemon.models import Base

KOHYA, DIFFUSERS, COMFY = "kohya", "diffusers", "comfy"
EMBEDDING, FOLDER, CHECKPOINT = "embedding", "folder", "checkpoint"
KINDS = (DIFFUSERS, KOHYA, COMFY, EMBEDDING, FOLDER, CHECKPOINT)
"""The kinds of exports: three formats of LoRA files, the tokens alone, a whole pipeline, the model in one file."""
CLIP = ("clip_l", "clip_g", "clip_h")
LANGUAGE_MODEL = "language model"
BY_WIDTH = {2560: "qwen3_4b", 3584: "qwen25_7b", 4096: "qwen3_8b", 5120: "mistral3_24b"}
"""ComfyUI's names of language models used as text encoders, by the width of their embeddings."""


@dataclass(frozen=True)
class Naming:
    """What other tools call a family and its parts."""

    architecture: str
    """`modelspec.architecture`."""
    formats: tuple[str, ...]
    """LoRA formats that some tool reads for this family."""
    encoders: Mapping[str, str]
    """Text encoder -> ComfyUI's name of it, which is also the key of its vectors in an embedding file."""
    denoiser: str = "transformer"
    """Attribute of the diffusers pipeline that holds the denoiser."""
    kohya: Mapping[str, str] | None = None
    """Part -> prefix of its keys in kohya's format."""
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
    """The family's line of the table. Stable Diffusion 2.x, recognised by its wider text encoder, has its own.

    Raises:
        MnemonError: the family is not in the table.
    """
    family = base.family
    if family == "sd" and base.embedding_statistics()["text_encoder"][0] == 1024:
        family = "sd2"
    if family not in NAMINGS:
        known = ", ".join(NAMINGS)
        raise MnemonError(f"How other tools name the family '{base.family}' is not known here; known: {known}.")
    return NAMINGS[family]


def layer_key(naming: Naming, target: str, format: str) -> str:
    """The key of a target module in a file of this format, without the suffix of each tensor."""
    part, path = split_target(naming, target)
    if naming.encoders.get(part) in CLIP and not path.startswith("text_projection"):
        path = f"text_model.{path}"  # readers expect this level, which newer versions of transformers lack
    if format == KOHYA:
        assert naming.kohya is not None
        return f"{naming.kohya[part]}_{path.replace('.', '_')}"
    return f"{part}.{path}"


def mapped_by_comfyui(naming: Naming, target: str) -> bool:
    """Whether ComfyUI finds the layer by its key in the format for ComfyUI: all layers of the denoiser with few
    exceptions, those of CLIP, none of a language model or T5. Checked against its loader's code."""
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


def placeholder_tokens(name: str, num_vectors: int) -> list[str]:
    """The tokenizer's tokens of a concept, one per vector, as diffusers numbers them: `<rex>`, `<rex>_1`, ..."""
    return [f"<{name}>_{index}" if index else f"<{name}>" for index in range(num_vectors)]


def tokenizer_of(encoder: str) -> str:
    """The pipeline's name of a text encoder's tokenizer."""
    return encoder.replace("text_encoder", "tokenizer")


def embedding_file(name: str) -> str:
    """The path of a token's file in an export; its stem is the trigger in ComfyUI and A1111."""
    return f"embeddings/{name}.safetensors"


def embedding_key(naming: Naming, encoder: str, width: int) -> str:
    """The key of a text encoder's vectors in an embedding file, as ComfyUI looks it up."""
    key = naming.encoders[encoder]
    return BY_WIDTH.get(width, encoder) if key == LANGUAGE_MODEL else key
