"""From an autoencoder's own latents z to those that the denoiser works on: (z - shift) · scale."""

from typing import Any

import torch
from torch import Tensor


def latent_shift_and_scale(vae: Any) -> tuple[Tensor | float, Tensor | float]:
    """Shift and scale by the config of an `AutoencoderKL`: `shift_factor` and `scaling_factor`, and where there are
    `latents_mean` and `latents_std`, those too: each channel's (channels, 1, 1) is standardised first."""
    config = vae.config
    shift, scale = config.shift_factor or 0, config.scaling_factor
    if config.latents_mean is None:
        return shift, scale
    both = torch.tensor([config.latents_mean, config.latents_std])[..., None, None]
    mean, std = both.to(vae.device, vae.dtype)
    return mean + shift, scale / std
