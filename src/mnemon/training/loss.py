"""The denoising loss."""

import torch
from torch import Tensor

from mnemon.models.base import Base, Conditioning


def denoising_loss(
    base: Base,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Conditioning,
    snr_gamma: float | None = None,
) -> Tensor:
    """The squared error of the base's prediction for each image, (batch,), in fp32."""
    noisy = base.add_noise(latents, noise, timesteps)
    target = base.target(latents, noise, timesteps)
    error = base.predict(noisy, timesteps, condition).float() - target.float()
    losses = error.square().flatten(1).mean(1)
    return losses if snr_gamma is None else losses * min_snr_weights(base, timesteps, snr_gamma)


@torch.no_grad()
def min_snr_weights(base: Base, timesteps: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights (batch,) of Hang et al. (arXiv 2303.09556), for whatever the base predicts.

    The paper weighs the squared error of the clean latents x by min(SNR, gamma). A base that predicts another target y
    makes, at fixed noisy latents, an error dy for each error dx; so the weight of its squared error is
    min(SNR, gamma) / (dy/dx)^2: min(SNR, gamma) / SNR for noise, min(SNR, gamma) / (SNR + 1) for velocity.
    """
    one = torch.ones(len(timesteps), 1, 1, 1, device=timesteps.device)
    zero = torch.zeros_like(one)
    # noisy = signal x + spread e and target = from_x x + from_e e, all linear: probe them with ones.
    signal, spread = base.add_noise(one, zero, timesteps), base.add_noise(zero, one, timesteps)
    from_x, from_e = base.target(one, zero, timesteps), base.target(zero, one, timesteps)
    slope = (from_x - from_e * signal / spread).flatten()
    return base.snr(timesteps).clamp(max=gamma) / slope.square()
