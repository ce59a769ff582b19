"""Stable Diffusion XL (Podell et al., arXiv 2307.01952)."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from mnemon.models.conditioning import Conditioning
from mnemon.models.unet import UNetBase


class StableDiffusionXL(UNetBase):
    """Two text encoders, concatenated, the second one's pooled embedding, and the image's size and crop.

    The empty prompt is encoded as zeros where the checkpoint says so (`force_zeros_for_empty_prompt`), as in training.
    """

    family = "sdxl"
    pipeline_class = StableDiffusionXLPipeline
    components = ("unet", "vae", "text_encoder", "text_encoder_2")
    unused = {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}

    def _encode(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Conditioning:
        outputs = [encoder(prompts, layers) for encoder in self.encoders]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = outputs[-1].text_embeds
        if self._pipeline.config.force_zeros_for_empty_prompt:
            said = torch.tensor([prompt != "" for prompt in prompts], device=hidden.device)
            hidden, pooled = hidden * said[:, None, None], pooled * said[:, None]
        return Conditioning(hidden, pooled)

    def _added_conditioning(self, conditioning: Conditioning) -> dict[str, Any]:
        """The pooled embeddings, and time ids (batch, 6) in pixels: original size, crop's corner, target size."""
        size = [self.resolution, self.resolution]
        ids = torch.tensor([[*size, 0, 0, *size]], device=self.device, dtype=self.dtype)
        pooled = conditioning.pooled_prompt_embeds
        assert pooled is not None
        return {"added_cond_kwargs": {"text_embeds": pooled.to(self.dtype), "time_ids": ids.expand(len(pooled), -1)}}
