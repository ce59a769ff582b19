"""How noise enters a latent in training, and what the denoiser is asked to give back.

Diffusion (Ho et al., arXiv 2006.11239; velocity: Salimans & Ho, arXiv 2202.00512): x_t = √ᾱ_t x + √(1 - ᾱ_t) ε.
Flow (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206): x_t = (1 - σ_t) x + σ_t ε.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from mnemon.errors import MnemonError


class Noise(ABC):
    """A base's way with noise. Timesteps are integers, 0 to `steps` - 1, more noise with each."""

    steps: int

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Uniform timesteps (batch,), on the generator's device."""
        return torch.randint(self.steps, (batch,), generator=generator, device=generator.device)

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    @abstractmethod
    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio of variances (batch,), in fp32."""

    @abstractmethod
    def times(self, timesteps: Tensor) -> Tensor:
        """What the denoiser is told at a training timestep."""

    @abstractmethod
    def sampling_scheduler(self) -> Any:
        """A fresh scheduler for drawing pictures."""


class Diffusion(Noise):
    """The discrete schedule of the scheduler's config, whatever scheduler the checkpoint came with."""

    def __init__(self, config: Any) -> None:
        self._config = config
        schedule = DDPMScheduler.from_config(config, clip_sample=False)
        self.kind = schedule.config.prediction_type
        if self.kind not in ("epsilon", "v_prediction", "sample"):
            raise MnemonError(
                f"The base's scheduler asks for the prediction type '{self.kind}'; "
                "supported are epsilon, v_prediction, sample and flow matching."
            )
        self.steps = schedule.config.num_train_timesteps
        self.signal = schedule.alphas_cumprod.float()  # ᾱ, (steps,)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal = self._signal(timesteps, latents)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.kind == "epsilon":
            return noise
        if self.kind == "sample":
            return latents
        signal = self._signal(timesteps, latents)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents

    def snr(self, timesteps: Tensor) -> Tensor:
        signal = self.signal.to(timesteps.device)[timesteps]
        return signal / (1 - signal)

    def times(self, timesteps: Tensor) -> Tensor:
        return timesteps

    def sampling_scheduler(self) -> Any:
        # DDIM clips the predicted picture to ±1 unless told not to: right for pixels, wrong for latents.
        clips = _given(self._config, "clip_sample") or False
        return DDIMScheduler.from_config(self._config, clip_sample=clips)

    def _signal(self, timesteps: Tensor, like: Tensor) -> Tensor:
        return self.signal.to(like.device)[timesteps.to(like.device)].to(like.dtype)[:, None, None, None]


class Flow(Noise):
    """Straight paths from picture to noise; timestep t stands at the schedule's t-th smallest σ."""

    def __init__(self, config: Any) -> None:
        self._config = config
        schedule = FlowMatchEulerDiscreteScheduler.from_config(config)
        self.steps = schedule.config.num_train_timesteps
        self.sigmas = schedule.sigmas.float().flip(0)  # (steps,)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = self._sigma(timesteps, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def snr(self, timesteps: Tensor) -> Tensor:
        sigma = self.sigmas.to(timesteps.device)[timesteps]
        return ((1 - sigma) / sigma) ** 2

    def times(self, timesteps: Tensor) -> Tensor:
        return self.sigmas.to(timesteps.device)[timesteps] * self.steps

    def sampling_scheduler(self) -> Any:
        return FlowMatchEulerDiscreteScheduler.from_config(self._config)

    def _sigma(self, timesteps: Tensor, like: Tensor) -> Tensor:
        return self.sigmas.to(like.device)[timesteps.to(like.device)].to(like.dtype)[:, None, None, None]


def noise_from(scheduler: Any) -> Noise:
    """Diffusion or flow, as a diffusers scheduler's class and config say.

    Raises:
        MnemonError: an unknown prediction type.
    """
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    return Flow(scheduler.config) if flow else Diffusion(scheduler.config)


def _given(config: Any, key: str) -> Any:
    """The value a checkpoint gives, None where it is only the scheduler class's default."""
    return None if key in config.get("_use_default_values", ()) else config.get(key)
