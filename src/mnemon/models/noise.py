"""How noise enters a latent in training, and what the denoiser is asked to give back.

Diffusion (Ho et al., arXiv 2006.11239; velocity: Salimans & Ho, arXiv 2202.00512): x_t = √ᾱ_t x + √(1 - ᾱ_t) ε.
Flow (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206): x_t = (1 - σ_t) x + σ_t ε.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from mnemon.errors import MnemonError

Mu = Callable[[int], float]
"""From the number of drawing steps to μ, by whose exponential a flow's schedule is shifted towards noise."""
TRAINED_STEPS = 50
"""The number of drawing steps whose shift training takes where the shift depends on it: the pipelines' default."""


class NoiseSchedule(ABC):
    """A base's way with noise. Timesteps run from 0 to `steps`, more noise with each; what a scheduler of
    `sampling_scheduler` and the denoiser call a timestep."""

    steps: int

    @abstractmethod
    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Timesteps (batch,) uniform over the schedule, on the generator's device."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    @abstractmethod
    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio of variances (batch,), in fp32."""

    @abstractmethod
    def sampling_scheduler(self) -> Any:
        """A fresh scheduler for drawing images."""


class Diffusion(NoiseSchedule):
    """The discrete schedule of the scheduler's config, whatever scheduler the checkpoint came with. Timesteps are
    integers below `steps`."""

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

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.steps, (batch,), generator=generator, device=generator.device)

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

    def sampling_scheduler(self) -> Any:
        # DDIM clips the predicted image to ±1 unless told not to: right for pixels, wrong for latents.
        clips = _given(self._config, "clip_sample") or False
        return DDIMScheduler.from_config(self._config, clip_sample=clips)

    def _signal(self, timesteps: Tensor, like: Tensor) -> Tensor:
        return self.signal.to(like.device)[timesteps.to(like.device)].to(like.dtype)[:, None, None, None]


class Flow(NoiseSchedule):
    """Straight paths from image to noise. A timestep is σ · `steps`, a float.

    Training draws σ uniformly and shifts it as drawing does: s σ / (1 + (s - 1) σ) with the config's s, or with
    s = exp(μ) for schedules that depend on the image's size (Esser et al., eq. 23).

    Args:
        config: of the scheduler.
        mu: for schedules that depend on the image's size.
        even: whether drawing starts from the σ 1, 1 - 1/n, ..., 1/n before the shift; otherwise the scheduler chooses.
    """

    def __init__(self, config: Any, mu: Mu | None = None, even: bool = False) -> None:
        self._config, self._mu, self._even = config, mu, even
        self._schedule = FlowMatchEulerDiscreteScheduler.from_config(config)
        self.steps = self._schedule.config.num_train_timesteps

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        sigma = 1 - torch.rand(batch, generator=generator, device=generator.device)  # never 0
        if self._schedule.config.use_dynamic_shifting and self._mu is not None:
            return self._schedule.time_shift(self._mu(TRAINED_STEPS), 1.0, sigma) * self.steps
        shift = self._schedule.config.shift
        return shift * sigma / (1 + (shift - 1) * sigma) * self.steps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = (timesteps / self.steps).to(latents)[:, None, None, None]
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def snr(self, timesteps: Tensor) -> Tensor:
        sigma = timesteps.float() / self.steps
        return ((1 - sigma) / sigma) ** 2

    def sampling_scheduler(self) -> Any:
        scheduler = FlowScheduler.from_config(self._config)
        scheduler.mu, scheduler.even = self._mu, self._even
        return scheduler


class FlowScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler steps that know by themselves what their family's pipeline would tell `set_timesteps`."""

    mu: Mu | None = None
    even = False

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        steps = num_inference_steps
        if steps is not None and sigmas is None and timesteps is None:
            mu = self.mu(steps) if mu is None and self.mu is not None else mu
            sigmas = np.linspace(1.0, 1 / steps, steps) if self.even else None
        super().set_timesteps(steps, device, sigmas, mu, timesteps)


def noise_from(scheduler: Any) -> NoiseSchedule:
    """Diffusion or flow, as a diffusers scheduler's class and config say.

    Raises:
        MnemonError: an unknown prediction type.
    """
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    return Flow(scheduler.config) if flow else Diffusion(scheduler.config)


def _given(config: Any, key: str) -> Any:
    """The value a checkpoint gives, None where it is only the scheduler class's default."""
    return None if key in config.get("_use_default_values", ()) else config.get(key)
