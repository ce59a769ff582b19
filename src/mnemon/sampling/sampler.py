"""Images from prompts and seeds: DDIM (arXiv 2010.02502), DPM-Solver++ (arXiv 2211.01095), or Euler steps along a flow
(arXiv 2403.03206), with classifier-free guidance (arXiv 2207.12598)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypedDict, Unpack

import torch
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.sampling.conditioning import EncodedPrompts
from mnemon.sampling.prompt_adapters import AdapterSets, PromptAdapters, no_adapters
from mnemon.sampling.regions import Region

OnStep = Callable[[int, int], None]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""From latents (batch, channels, height, width) and a timestep () to the prediction, shaped as the latents."""


@dataclass(frozen=True)
class SamplingSettings:
    """How images are sampled.

    Attributes:
        guidance_scale: of classifier-free guidance; 1 switches it off and takes half the time. A guidance-distilled
            base (`Base.distilled`) takes it as input instead.
        num_inference_steps: denoising steps.
        negative_prompt: the prompt of the unconditional prediction.
        batch_size: images sampled at once.
        scheduler: one of the base's `NoiseSchedule.samplers`; None for its default.
    """

    guidance_scale: float = 4.0
    num_inference_steps: int = 30
    negative_prompt: str = ""
    batch_size: int = 8
    scheduler: str | None = None


DEFAULTS = SamplingSettings()


def fitted(settings: SamplingSettings, base: Base) -> SamplingSettings:
    """Defaults that were made for the built-in base, as `base.profile` has them for this one: its guidance, no more
    steps than it wants, no more images at once than it should."""
    profile = base.profile
    return replace(
        settings,
        guidance_scale=profile.guidance_scale,
        num_inference_steps=min(settings.num_inference_steps, profile.num_inference_steps),
        batch_size=min(settings.batch_size, profile.images_at_once or settings.batch_size),
    )


class SampleOptions(TypedDict, total=False):
    """What `sample` takes beside prompts, seeds and settings.

    Attributes:
        regions: for each image its regions, as many for all of them; a region has a prompt of its own (and the adapters
            of that prompt), the rest of the image follows the image's.
        feather: width of the transition at the regions' edges, as a fraction of the image's side.
        init_images: (n, 3, height, width) in 0..1 to start from instead of pure noise (SDEdit, arXiv 2108.01073).
        strength: the share of the steps that are then taken, 0..1.
        on_step: called after each denoising step with (steps done, steps in all), all batches counted.
    """

    regions: Sequence[Sequence[Region]] | None
    feather: float
    init_images: Tensor | None
    strength: float
    on_step: OnStep | None


def options_of(options: SampleOptions, rows: Sequence[int]) -> SampleOptions:
    """The options for some of the images."""
    own = options.copy()
    if (regions := options.get("regions")) is not None:
        own["regions"] = [regions[row] for row in rows]
    if (init_images := options.get("init_images")) is not None:
        own["init_images"] = init_images[list(rows)]
    return own


class Sampler(Protocol):
    """`sample` with its base, or with a base that has concepts in it."""

    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings = ...,
        **options: Unpack[SampleOptions],
    ) -> Tensor: ...


@torch.no_grad()
def sample(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings = DEFAULTS,
    adapter_sets: AdapterSets = no_adapters,
    **options: Unpack[SampleOptions],
) -> Tensor:
    """One image for each prompt and seed, (n, 3, height, width) in 0..1 on the CPU.

    An image depends on its own prompt and seed alone: its noise comes from a CPU generator of its seed, so the other
    images of its batch and the device change nothing but rounding.

    Args:
        adapter_sets: for each prompt the sets of adapters under which it is denoised; of several, the mean prediction.
        options: as `SampleOptions` says.

    Raises:
        MnemonError: not as many seeds as prompts; steps or batch size out of range; an unknown concept in a prompt; a
            negative prompt for a distilled base; images that are not finite.
    """
    _check(base, prompts, seeds, settings)
    if not prompts:
        return torch.zeros(0, 3, base.resolution, base.resolution)
    encoded = EncodedPrompts(base, prompts, options.get("regions"), settings.guidance_scale, settings.batch_size)
    guidance_scale = 1.0 if base.distilled else settings.guidance_scale
    uncond = None if guidance_scale == 1 else base.encode_prompts([settings.negative_prompt])
    starts = range(0, len(prompts), settings.batch_size)
    images = []
    for index, start in enumerate(starts):
        batch = slice(start, start + settings.batch_size)
        conditioning = encoded.batch(batch, options.get("feather", 0.0))
        with PromptAdapters(base, conditioning.prompts, adapter_sets) as adapters:
            if uncond is not None:
                conditioning = conditioning.with_uncond(uncond)
            denoiser = partial(_guided, base, partial(adapters.predict, conditioning), guidance_scale)
            scheduler, timesteps, latents = _start(base, seeds[batch], settings, options, batch)
            for step, t in enumerate(timesteps, start=1 + index * len(timesteps)):
                latents = scheduler.step(denoiser(latents, t), t, latents).prev_sample
                if on_step := options.get("on_step"):
                    on_step(step, len(starts) * len(timesteps))
        images.append(_finite(base, base.decode_latents(latents).cpu()))
    return torch.cat(images)


def _finite(base: Base, images: Tensor) -> Tensor:
    """The images, which would be written as black ones if they were no numbers."""
    if not images.isfinite().all():
        raise MnemonError(
            f"'{base.name}' gives images that are not finite numbers: its weights or noise schedule are damaged, or "
            "its autoencoder overflows in 16 bits. Fetch it again, or compute in 32 bits."
        )
    return images


def _start(
    base: Base, seeds: Sequence[int], settings: SamplingSettings, options: SampleOptions, batch: slice
) -> tuple[Any, Tensor, Tensor]:
    """The scheduler, the timesteps to take, and the latents to begin with: noise, or noised `init_images`."""
    shape = base.latent_shape()
    # Each image's noise comes from its own seed and is on every device the same.
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    noise = torch.stack(draws).to(base.device)
    scheduler = base.schedule.sampling_scheduler(settings.scheduler)
    scheduler.set_timesteps(settings.num_inference_steps, device=noise.device)
    init_images = options.get("init_images")
    if init_images is None:
        return scheduler, scheduler.timesteps, noise
    latents, strength = base.encode_images(init_images[batch]), options.get("strength", 1.0)
    timesteps = scheduler.timesteps[len(scheduler.timesteps) - round(strength * settings.num_inference_steps) :]
    if len(timesteps):
        latents = base.schedule.add_noise(latents, noise, timesteps[:1].expand(len(noise)))
    return scheduler, timesteps, latents


def _guided(base: Base, denoiser: Denoiser, guidance_scale: float, latents: Tensor, t: Tensor) -> Tensor:
    """The prediction with classifier-free guidance: unconditional and conditional rows in one pass."""
    if guidance_scale == 1:
        return denoiser(latents, t)
    uncond, cond = denoiser(torch.cat([latents, latents]), t).chunk(2)
    return base.classifier_free_guidance(uncond, cond, guidance_scale)


def _check(base: Base, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings) -> None:
    if len(prompts) != len(seeds):
        raise MnemonError(f"{len(prompts)} prompts came with {len(seeds)} seeds: every image needs one of each.")
    steps, most = settings.num_inference_steps, base.schedule.num_train_timesteps
    if not 1 <= steps <= most:
        raise MnemonError(f"{steps} denoising steps cannot be taken: choose 1 to {most}, for example 30.")
    if settings.batch_size < 1:
        raise MnemonError(f"A batch of {settings.batch_size} images cannot be sampled: choose 1 or more.")
    if base.distilled and settings.negative_prompt:
        raise MnemonError(f"'{base.name}' has its guidance built in and takes no negative prompt: leave it out.")
