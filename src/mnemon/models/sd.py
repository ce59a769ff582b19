"""Stable Diffusion 1.x and 2.x (Rombach et al., arXiv 2112.10752); the built-in world's base is one."""

from collections.abc import Sequence

from diffusers import StableDiffusionPipeline

from mnemon.models.conditioning import Conditioning
from mnemon.models.unet import UNetBase


class StableDiffusion(UNetBase):
    """One CLIP text encoder; the U-Net attends to its last hidden states."""

    family = "sd"
    pipeline_class = StableDiffusionPipeline
    components = ("unet", "vae", "text_encoder")
    unused = {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }

    def _encode(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Conditioning:
        (encoder,) = self.encoders
        return Conditioning(encoder(prompts, layers).last_hidden_state)
