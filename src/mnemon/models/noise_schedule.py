"""Noise schedules: how noise enters a latent, and what the denoiser is trained to predict.

    x_t = α_t x + σ_t ε            target = c_x x + c_ε ε

Diffusion (Ho et al., arXiv 2006.11239): α_t = √ᾱ_t, σ_t = √(1 - ᾱ_t); the target is ε, x, or the velocity
α_t ε - σ_t x (Salimans & Ho, arXiv 2202.00512). Flow matching (Liu et al., arXiv 2209.03003; Esser et al., arXiv
2403.03206): α_t = 1 - σ_t, and the target is ε - x.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.models.configs import NOISE, SPACING, check_diffusion, check_flow
from mnemon.models.schedulers import DDIM, DPMSolverMultistep, FlowEuler, Shift

TRAINING_SHIFT_STEPS = 50
"""The number of inference steps whose μ training uses: the pipelines' default."""
Coefficients = tuple[Tensor, Tensor]


class NoiseSchedule(ABC):
    """α_t, σ_t and the target's coefficients; noising, targets, SNR and loss weights follow from them.

    Attributes:
        num_train_timesteps: timesteps run from 0 to this, noisier with each.
        samplers: the schedulers it can be sampled with, by diffusers' names; the first is the default.
    """

    num_train_timesteps: int
    samplers: ClassVar[tuple[str, ...]]

    @abstractmethod
    def alpha_sigma(self, timesteps: Tensor) -> Coefficients:
        """α_t and σ_t, (batch,) in fp32 each."""

    @abstractmethod
    def target_coefficients(self, timesteps: Tensor) -> Coefficients:
        """c_x and c_ε, (batch,) in fp32 each."""

    @abstractmethod
    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Training timesteps (batch,), uniform over the schedule, on the generator's device."""

    def sampling_scheduler(self, name: str | None = None) -> Any:
        """A fresh diffusers scheduler for sampling, one of `samplers`; the first of them without a name.

        Raises:
            MnemonError: it is not for this schedule.
        """
        if name is not None and name not in self.samplers:
            raise MnemonError(f"This base is not sampled with '{name}': choose from {', '.join(self.samplers)}.")
        return self._scheduler_named(name or self.samplers[0])

    @abstractmethod
    def _scheduler_named(self, name: str) -> Any:
        """A fresh one of `samplers`."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, shaped as the latents (batch, channels, height, width)."""
        return _combine(self.alpha_sigma(timesteps), latents, noise)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict, shaped as the latents."""
        return _combine(self.target_coefficients(timesteps), latents, noise)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio α_t² / σ_t², (batch,) in fp32."""
        alpha, sigma = self.alpha_sigma(timesteps)
        return (alpha / sigma) ** 2

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Min-SNR weights (batch,) of the squared error (Hang et al., arXiv 2303.09556), for any target.

        The paper weighs the squared error of x by min(SNR, γ). At fixed x_t an error dx is one of -α_t/σ_t dx in ε, so
        one of (c_x - c_ε α_t/σ_t) dx in the target: min(SNR, γ) / SNR for noise, min(SNR, γ) / (SNR + 1) for velocity.
        """
        alpha, sigma = self.alpha_sigma(timesteps)
        c_x, c_eps = self.target_coefficients(timesteps)
        return self.snr(timesteps).clamp(max=gamma) / (c_x - c_eps * alpha / sigma).square()


class Diffusion(NoiseSchedule):
    """The discrete schedule of the scheduler's config, whatever scheduler the checkpoint came with. Timesteps are
    integers below `num_train_timesteps`."""

    samplers = ("DDIM", "DPMSolverMultistep")

    def __init__(self, config: Any) -> None:
        self._config = config
        self._noise, self._spacing = (
            {field: config[field] for field in fields if field in config} for fields in (NOISE, SPACING)
        )
        scheduler = DDPMScheduler.from_config(config, **self._noise, clip_sample=False)
        self.prediction_type = scheduler.config.prediction_type
        self.num_train_timesteps = scheduler.config.num_train_timesteps
        self._alphas_cumprod = scheduler.alphas_cumprod.float()  # ᾱ, (num_train_timesteps,)

    def alpha_sigma(self, timesteps: Tensor) -> Coefficients:
        alphas_cumprod = self._alphas_cumprod.to(timesteps.device)[timesteps]
        return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()

    def target_coefficients(self, timesteps: Tensor) -> Coefficients:
        alpha, sigma = self.alpha_sigma(timesteps)
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        return {"epsilon": (zero, one), "sample": (one, zero), "v_prediction": (-sigma, alpha)}[self.prediction_type]

    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.num_train_timesteps, (batch_size,), generator=generator, device=generator.device)

    def _scheduler_named(self, name: str) -> Any:
        if name == "DPMSolverMultistep":
            return DPMSolverMultistep.from_config(self._config, **self._noise, algorithm_type="dpmsolver++")
        # DDIM clips the predicted image to ±1 by default: right for pixels, wrong for latents.
        given = "clip_sample" not in self._config.get("_use_default_values", ())
        clip = bool(given and self._config.get("clip_sample"))
        return DDIM.from_config(self._config, **self._noise, **self._spacing, clip_sample=clip)


class Flow(NoiseSchedule):
    """Straight paths from image to noise. A timestep is σ_t · `num_train_timesteps`, a float.

    Training samples σ uniformly and shifts it as sampling does: s σ / (1 + (s - 1) σ) with the config's s, or with
    s = exp(μ) for schedules that depend on the image's size (Esser et al., eq. 23).

    Args:
        config: of the scheduler.
        shift: μ, for schedules that depend on the image's size.
        linear_sigmas: whether sampling starts from the σ 1, 1 - 1/n, ..., 1/n before the shift; otherwise the scheduler
            chooses.
    """

    samplers = ("Euler",)

    def __init__(self, config: Any, shift: Shift | None = None, linear_sigmas: bool = False) -> None:
        self._config, self._shift, self._linear_sigmas = config, shift, linear_sigmas
        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        self.num_train_timesteps = self._scheduler.config.num_train_timesteps

    def alpha_sigma(self, timesteps: Tensor) -> Coefficients:
        sigma = timesteps.float() / self.num_train_timesteps
        return 1 - sigma, sigma

    def target_coefficients(self, timesteps: Tensor) -> Coefficients:
        one = torch.ones(len(timesteps), device=timesteps.device)
        return -one, one

    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        sigma = 1 - torch.rand(batch_size, generator=generator, device=generator.device)  # never 0
        if self._scheduler.config.use_dynamic_shifting and self._shift is not None:
            mu = self._shift(TRAINING_SHIFT_STEPS)
            return self._scheduler.time_shift(mu, 1.0, sigma) * self.num_train_timesteps
        shift = self._scheduler.config.shift
        return shift * sigma / (1 + (shift - 1) * sigma) * self.num_train_timesteps

    def _scheduler_named(self, name: str) -> Any:
        scheduler = FlowEuler.from_config(self._config)
        scheduler.shift_of_steps, scheduler.linear_sigmas = self._shift, self._linear_sigmas
        return scheduler


def noise_schedule(scheduler: Any, base: str = "the base") -> NoiseSchedule:
    """Diffusion or flow, by a diffusers scheduler's class and config; `base` is the base's name.

    Raises:
        MnemonError: a scheduler, or a field of its config, that is not understood.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        check_flow(scheduler, base, dynamic_shifting=False)
        return Flow(scheduler.config)
    check_diffusion(scheduler, base)
    return Diffusion(scheduler.config)


def _combine(coefficients: Coefficients, latents: Tensor, noise: Tensor) -> Tensor:
    of_latents, of_noise = (one.to(latents)[:, None, None, None] for one in coefficients)
    return of_latents * latents + of_noise * noise
