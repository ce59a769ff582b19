"""The denoising loss."""

from torch import Tensor

from mnemon.models.base import Base
from mnemon.models.conditioning import Conditioning


def denoising_loss(
    base: Base,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Conditioning,
    snr_gamma: float | None = None,
    masks: Tensor | None = None,
) -> Tensor:
    """The squared error of the base's prediction for each image, (batch,), in fp32: the mean over channels and
    positions, weighed at each position by `masks` (batch, 1, height, width)."""
    noisy = base.schedule.add_noise(latents, noise, timesteps)
    target = base.schedule.target(latents, noise, timesteps)
    error = base.predict(noisy, timesteps, condition).float() - target.float()
    squared = error.square() if masks is None else error.square() * masks
    losses = squared.flatten(1).mean(1)
    return losses if snr_gamma is None else losses * base.schedule.min_snr_weights(timesteps, snr_gamma)
