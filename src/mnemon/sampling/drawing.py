"""From prompts and seeds to pictures: DDIM (arXiv 2010.02502) with classifier-free guidance (arXiv 2207.12598)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mnemon.adapters import Delta, Routed
from mnemon.errors import MnemonError
from mnemon.models.base import Base, Condition

OnStep = Callable[[int, int], None]
"""Called after each denoising step with (steps done, steps in all), all batches counted."""
Branches = Callable[[str], Sequence[Mapping[str, Delta]]]
"""The sets of changes, by site, under which a prompt is denoised; at least one, which may be empty."""


@torch.no_grad()
def draw(
    base: Base,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    guidance: float,
    steps: int,
    negative: str = "",
    batch: int = 16,
    on_step: OnStep | None = None,
    branches: Branches | None = None,
) -> Tensor:
    """One picture for each prompt and seed, (n, 3, height, width) in 0..1 on the CPU.

    A picture depends on its own prompt and seed alone: its noise comes from a CPU generator of its seed, so the other
    pictures of its batch and the device change nothing but rounding.

    Args:
        guidance: how far to go beyond the negative prompt's prediction; 1 leaves the negative prompt out and takes
            half the time. A base with guidance built in (`Base.distilled`) is told it instead.
        batch: pictures drawn at once.
        branches: for each prompt the sets of changes under which it is denoised; of several, the mean prediction.

    Raises:
        MnemonError: as many seeds as prompts are needed; steps or batch out of range; an unknown concept in a prompt.
    """
    check_request(base, prompts, seeds, steps, batch)
    if base.distilled and negative:
        raise MnemonError(f"'{base.name}' has its guidance built in and hears no negative prompt: leave it out.")
    texts, rows = _distinct(prompts)
    conditions = _encode(base, texts, batch)
    if base.distilled:
        conditions, guidance = conditions.guided(guidance), 1
    unconditional = base.encode_prompts([negative]) if guidance != 1 else None
    pictures = []
    starts = range(0, len(prompts), batch)
    for index, start in enumerate(starts):
        chosen = torch.tensor(rows[start : start + batch])
        latents = _noise(base, seeds[start : start + batch])
        step = shifted(on_step, index * steps, len(starts) * steps)
        with _Branched(base, [texts[row] for row in chosen], branches) as branched:
            latents = _denoise(branched, latents, conditions[chosen], unconditional, guidance, steps, step)
        pictures.append(base.decode_latents(latents).cpu())
    return torch.cat(pictures) if pictures else torch.zeros(0, 3, base.resolution, base.resolution)


class _Branched:
    """The predictions for some pictures, each under its own sets of changes: a row of the batch for each set."""

    def __init__(self, base: Base, prompts: Sequence[str], branches: Branches | None) -> None:
        self.base = base
        ways = {prompt: branches(prompt) if branches else [{}] for prompt in dict.fromkeys(prompts)}
        sets = [(prompt, way) for prompt, found in ways.items() for way in range(len(found))]
        rows = [(picture, sets.index((p, way))) for picture, p in enumerate(prompts) for way in range(len(ways[p]))]
        self.picture = torch.tensor([picture for picture, _ in rows])  # (rows,): whose row it is
        self.set = torch.tensor([number for _, number in rows])  # (rows,): under which changes
        self.share = 1 / self.picture.bincount().float()  # (pictures,)
        self._sets = [ways[prompt][way] for prompt, way in sets] if branches else []

    def __enter__(self) -> "_Branched":
        self._routed = Routed(self.base.sites(), self._sets)
        return self

    def __exit__(self, *_: object) -> None:
        self._routed.remove()

    def predict(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The predictions for `latents` (k · pictures, ...): all pictures once, or twice for guidance."""
        times = len(latents) // len(self.share)
        if len(self.picture) > len(self.share):  # rows beyond one a picture
            rows = torch.cat([self.picture + turn * len(self.share) for turn in range(times)]).to(latents.device)
            answers = self._answers(latents[rows], time, condition[rows], times)
            total = torch.zeros_like(latents).index_add_(0, rows, answers)
            return total * self.share.to(latents).repeat(times)[:, None, None, None]
        return self._answers(latents, time, condition, times)

    def _answers(self, latents: Tensor, time: Tensor, condition: Condition, times: int) -> Tensor:
        self._routed.route(self.set.repeat(times))
        return self.base.predict(latents, time.expand(len(latents)), condition)


def _denoise(
    branched: _Branched,
    latents: Tensor,
    condition: Condition,
    unconditional: Condition | None,
    guidance: float,
    steps: int,
    on_step: OnStep | None,
) -> Tensor:
    scheduler: Any = branched.base.sampling_scheduler()
    scheduler.set_timesteps(steps, device=latents.device)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    if unconditional is not None:
        condition = Condition.cat([unconditional[torch.zeros(len(latents), dtype=torch.long)], condition])
    for done, time in enumerate(scheduler.timesteps, start=1):
        inputs = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
        if unconditional is not None:  # both halves in one pass
            inputs = torch.cat([inputs, inputs])
        prediction = branched.predict(inputs, time, condition)
        if unconditional is not None:
            without, along = prediction.chunk(2)
            prediction = branched.base.guided(without, along, guidance)
        latents = scheduler.step(prediction, time, latents).prev_sample
        if on_step is not None:
            on_step(done, steps)
    return latents


def _noise(base: Base, seeds: Sequence[int]) -> Tensor:
    shape = base.latent_shape()
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(base.device)


def _distinct(prompts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct prompts, and for each prompt its place among them."""
    places: dict[str, int] = {}
    rows = [places.setdefault(prompt, len(places)) for prompt in prompts]
    return list(places), rows


def _encode(base: Base, texts: Sequence[str], batch: int) -> Condition:
    parts = [base.encode_prompts(texts[start : start + batch]) for start in range(0, len(texts), batch)]
    return Condition.cat(parts) if parts else base.encode_prompts([""])


def shifted(on_step: OnStep | None, before: int, total: int) -> OnStep | None:
    """A callback for one part of a job of `total` steps, `before` of which are done when the part begins."""
    if on_step is None:
        return None
    return lambda done, _: on_step(before + done, total)


def check_request(base: Base, prompts: Sequence[str], seeds: Sequence[int], steps: int, batch: int) -> None:
    """Raise MnemonError where `draw` could not serve the request."""
    if len(prompts) != len(seeds):
        raise MnemonError(f"{len(prompts)} prompts came with {len(seeds)} seeds: every picture needs one of each.")
    scheduler: Any = base.sampling_scheduler()
    most = scheduler.config.num_train_timesteps - 1
    if not 1 <= steps <= most:
        raise MnemonError(f"{steps} denoising steps cannot be taken: choose 1 to {most}, for example 30.")
    if batch < 1:
        raise MnemonError(f"A batch of {batch} pictures cannot be drawn: choose 1 or more.")
