"""Bases of the families: tiny ones that ComfyUI's classes can hold too, and the published sizes without their bytes."""

from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

from mnemon.models import FAMILIES
from mnemon.models.base import Base
from mnemon.planning import ModelConfigs, read_configs
from tests.tiny import tiny_sd, tiny_sdxl
from tests.tiny_transformers import PIPELINES

ALL = ("sd", "sdxl", "sd3", "flux", "flux2", "flux2-klein", "qwen-image", "z-image")
SHIPPED = {"sdxl": "sdxl", "sd3": "sd3.5-medium", "flux2-klein": "flux2-klein-4b", "z-image": "z-image"}
WIDER: dict[str, dict[str, Any]] = {
    "sd3": {"attention_head_dim": 64, "caption_projection_dim": 128},
    "z-image": {"dim": 256, "n_heads": 16, "n_kv_heads": 16},
}
"""Tiny ones in widths that ComfyUI's classes can have: 64 for each layer of SD 3, and the timestep's of Z-Image."""
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
VAE = ("diffusers", "AutoencoderKL", {"block_out_channels": [32], "latent_channels": 4})  # plays no part in names
VAE_16 = ("diffusers", "AutoencoderKL", {"block_out_channels": [32], "latent_channels": 16})
FLOW = ("diffusers", "FlowMatchEulerDiscreteScheduler", {})
OTHERS: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "sd": {
        "unet": ("diffusers", "UNet2DConditionModel", {"cross_attention_dim": 768, "sample_size": 64}),
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
        "scheduler": ("diffusers", "DDIMScheduler", {"steps_offset": 1, "clip_sample": False}),
        "vae": VAE,
    },
    "flux": {
        "transformer": ("diffusers", "FluxTransformer2DModel", {"guidance_embeds": True}),
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
        "text_encoder_2": (
            "transformers",
            "T5EncoderModel",
            {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"},
        ),
        "scheduler": FLOW,
        "vae": VAE_16,
    },
    "qwen-image": {
        "transformer": ("diffusers", "QwenImageTransformer2DModel", {}),
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration", {}),
        "scheduler": FLOW,
        "vae": ("diffusers", "AutoencoderKLQwenImage", {}),
    },
    "flux2": {
        "transformer": ("diffusers", "Flux2Transformer2DModel", {}),
        "text_encoder": ("transformers", "Mistral3ForConditionalGeneration", {}),
        "scheduler": FLOW,
        "vae": ("diffusers", "AutoencoderKLFlux2", {}),
    },
}
"""Sizes that do not come with the package; what is not said is the class's default, which is the published value."""


def tiny(family: str) -> Base:
    pipeline: Any = {"sd": tiny_sd, "sdxl": tiny_sdxl, **PIPELINES}[family]()
    if family in WIDER:
        kind = type(pipeline.transformer)
        torch.manual_seed(0)
        transformer = kind.from_config(dict(pipeline.transformer.config) | WIDER[family])
        pipeline.register_modules(transformer=transformer)
    if family == "z-image":
        pipeline.transformer.t_embedder = TimestepEmbedder(256, mid_size=256)
    base = FAMILIES[family](pipeline, name=f"tiny {family}")
    assert isinstance(base, Base)
    return base


def real(family: str) -> Base:
    """The published size on the meta device."""
    if family in SHIPPED:
        return read_configs(SHIPPED[family]).empty_model(torch.float32)
    return ModelConfigs(family, FAMILIES[family], {}, OTHERS[family], ()).empty_model(torch.float32)  # type: ignore[arg-type]
