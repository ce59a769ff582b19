"""From prompts and seeds to images: DDIM (arXiv 2010.02502), or Euler steps along a flow (arXiv 2403.03206), with
classifier-free guidance (arXiv 2207.12598)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mnemon.adapters import Delta, Routed
from mnemon.errors import MnemonError
from mnemon.models.base import Base, Conditioning
from mnemon.sampling.regions import Region, shares

OnStep = Callable[[int, int], None]
"""Called after each denoising step with (steps done, steps in all), all batches counted."""
Branches = Callable[[str], Sequence[Mapping[str, Delta]]]
"""The sets of changes, by target module, under which a prompt is denoised; at least one, which may be empty."""


@torch.no_grad()
def sample(
    base: Base,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    guidance_scale: float,
    num_inference_steps: int,
    negative_prompt: str = "",
    batch_size: int = 16,
    on_step: OnStep | None = None,
    branches: Branches | None = None,
    regions: Sequence[Sequence[Region]] | None = None,
    feather: float = 0.0,
    start: Tensor | None = None,
    redrawn: float = 1.0,
) -> Tensor:
    """One image for each prompt and seed, (n, 3, height, width) in 0..1 on the CPU.

    An image depends on its own prompt and seed alone: its noise comes from a CPU generator of its seed, so the other
    images of its batch and the device change nothing but rounding.

    Args:
        guidance_scale: how far to go beyond the negative prompt's prediction; 1 leaves the negative prompt out and takes
            half the time. A base with guidance built in (`Base.distilled`) is told it instead.
        batch_size: images drawn at once.
        branches: for each prompt the sets of changes under which it is denoised; of several, the mean prediction.
        regions: for each image its regions, as many for all of them; a region hears its own prompt (under the changes
            of that prompt), the rest of the image the image's.
        feather: width of the fading at the regions' edges, as a fraction of the image's side.
        start: images (n, 3, height, width) in 0..1 to draw over: noised, and only the last steps taken from there
            (SDEdit, arXiv 2108.01073).
        redrawn: the share of the steps that are taken then.

    Raises:
        MnemonError: as many seeds as prompts are needed; steps or batch out of range; an unknown concept in a prompt.
    """
    check_request(base, prompts, seeds, num_inference_steps, batch_size)
    if base.distilled and negative_prompt:
        raise MnemonError(f"'{base.name}' has its guidance built in and hears no negative prompt: leave it out.")
    texts = list(dict.fromkeys([*prompts, *(region.prompt for own in regions or [] for region in own)]))
    conditions = _encode(base, texts, batch_size)
    if base.distilled:
        conditions, guidance_scale = conditions.guided(guidance_scale), 1
    unconditional = base.encode_prompts([negative_prompt]) if guidance_scale != 1 else None
    images = []
    starts = range(0, len(prompts), batch_size)
    for index, first in enumerate(starts):
        part = slice(first, first + batch_size)
        heard = _Heard(base, prompts[part], branches, regions[part] if regions else None, feather)
        told = [conditions[torch.tensor([texts.index(text) for text in said])] for said in heard.texts]
        step = shifted(on_step, index * num_inference_steps, len(starts) * num_inference_steps)
        with heard:
            over = None if start is None else base.encode_images(start[part])
            noise = _noise(base, seeds[part])
            latents = _denoise(
                heard,
                noise,
                over,
                round(redrawn * num_inference_steps),
                told,
                unconditional,
                guidance_scale,
                num_inference_steps,
                step,
            )
        images.append(base.decode_latents(latents).cpu())
    return torch.cat(images) if images else torch.zeros(0, 3, base.resolution, base.resolution)


class _Heard:
    """What some images hear, and under which changes: a row of the batch for each image and each of its branches,
    in every row a text for the whole image and one for each region."""

    def __init__(
        self,
        base: Base,
        prompts: Sequence[str],
        branches: Branches | None,
        regions: Sequence[Sequence[Region]] | None,
        feather: float,
    ) -> None:
        self.base = base
        within = regions or [[] for _ in prompts]
        self.texts = [list(prompts), *map(list, zip(*([r.prompt for r in own] for own in within), strict=True))]
        ways = {text: branches(text) if branches else [{}] for said in self.texts for text in dict.fromkeys(said)}
        sets = [(text, way) for text, found in ways.items() for way in range(len(found))]
        rows = [(image, way) for image, text in enumerate(prompts) for way in range(len(ways[text]))]
        self.image = torch.tensor([image for image, _ in rows])  # (rows,): whose row it is
        self.share = 1 / self.image.bincount().float()  # (images,)
        self.set = torch.tensor(  # (rows · texts,): under which changes
            [
                sets.index((said[image], 0 if index else way))
                for image, way in rows
                for index, said in enumerate(self.texts)
            ]
        )
        self._sets = [ways[text][way] for text, way in sets] if branches else []
        self.places = None
        if regions:
            self.places = torch.stack([shares(own, base.resolution, feather) for own in within]).to(base.device)

    def __enter__(self) -> "_Heard":
        self._routed = Routed(self.base.target_modules(), self._sets)
        return self

    def __exit__(self, *_: object) -> None:
        self._routed.remove()

    def predict(self, latents: Tensor, time: Tensor, told: Sequence[Conditioning]) -> Tensor:
        """The predictions for `latents` (k · images, ...): all images once, or twice for guidance.

        `told` are the conditions of the whole image and of each region, in rows like the latents.
        """
        times = len(latents) // len(self.share)
        if len(self.image) == len(self.share):
            return self._answers(latents, time, told, times, self.places)
        # Several rows an image: the mean of their predictions.
        rows = torch.cat([self.image + turn * len(self.share) for turn in range(times)]).to(latents.device)
        places = None if self.places is None else self.places[self.image.to(self.places.device)]
        answers = self._answers(latents[rows], time, [one[rows] for one in told], times, places)
        total = torch.zeros_like(latents).index_add_(0, rows, answers)
        return total * self.share.to(latents).repeat(times)[:, None, None, None]

    def _answers(
        self, latents: Tensor, time: Tensor, told: Sequence[Conditioning], times: int, places: Tensor | None
    ) -> Tensor:
        self._routed.route(self.set.repeat(times))
        whole, *inside = told
        if places is None:
            return self.base.predict(latents, time.expand(len(latents)), whole)
        with self.base.regional_prompts(inside, places.repeat(times, 1, 1, 1)):
            return self.base.predict(latents, time.expand(len(latents)), whole)


def _denoise(
    heard: _Heard,
    noise: Tensor,
    over: Tensor | None,
    last: int,
    told: Sequence[Conditioning],
    unconditional: Conditioning | None,
    guidance_scale: float,
    num_inference_steps: int,
    on_step: OnStep | None,
) -> Tensor:
    scheduler: Any = heard.base.sampling_scheduler()
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    times = scheduler.timesteps
    if over is None:
        latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        times = times[len(times) - last :]
        latents = heard.base.add_noise(over, noise, times[:1].expand(len(noise))) if last else over
    if unconditional is not None:
        nothing = unconditional[torch.zeros(len(latents), dtype=torch.long)]
        told = [Conditioning.cat([nothing, one]) for one in told]
    for done, time in enumerate(times, start=1 + num_inference_steps - len(times)):
        inputs = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
        if unconditional is not None:  # both halves in one pass
            inputs = torch.cat([inputs, inputs])
        prediction = heard.predict(inputs, time, told)
        if unconditional is not None:
            without, along = prediction.chunk(2)
            prediction = heard.base.guided(without, along, guidance_scale)
        latents = scheduler.step(prediction, time, latents).prev_sample
        if on_step is not None:
            on_step(done, num_inference_steps)
    return latents


def _noise(base: Base, seeds: Sequence[int]) -> Tensor:
    shape = base.latent_shape()
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(base.device)


def _encode(base: Base, texts: Sequence[str], batch_size: int) -> Conditioning:
    parts = [base.encode_prompts(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
    return Conditioning.cat(parts) if parts else base.encode_prompts([""])


def shifted(on_step: OnStep | None, before: int, total: int) -> OnStep | None:
    """A callback for one part of a job of `total` steps, `before` of which are done when the part begins."""
    if on_step is None:
        return None
    return lambda done, _: on_step(before + done, total)


def check_request(
    base: Base, prompts: Sequence[str], seeds: Sequence[int], num_inference_steps: int, batch_size: int
) -> None:
    """Raise MnemonError where `sample` could not serve the request."""
    if len(prompts) != len(seeds):
        raise MnemonError(f"{len(prompts)} prompts came with {len(seeds)} seeds: every image needs one of each.")
    scheduler: Any = base.sampling_scheduler()
    most = scheduler.config.num_train_timesteps - 1
    if not 1 <= num_inference_steps <= most:
        raise MnemonError(f"{num_inference_steps} denoising steps cannot be taken: choose 1 to {most}, for example 30.")
    if batch_size < 1:
        raise MnemonError(f"A batch of {batch_size} images cannot be drawn: choose 1 or more.")
