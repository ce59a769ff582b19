"""From an autoencoder's own latents z to those that the denoiser works on: (z - shift) · scale."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PIXELS = 2**20
"""Pixels that the autoencoder works on at once: one image of 1024 x 1024, 256 of the built-in base's."""


def in_slices(images: Tensor, pixels: int) -> Sequence[Tensor]:
    """A batch in parts that the autoencoder takes one after another; `pixels` are those of one image. It holds about
    1.5 kB a pixel in 16 bits, more than anything else does."""
    return images.split(max(1, PIXELS // pixels))


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
