"""The images a training run learns from, and the batch of one step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.models.base import Base


@dataclass(frozen=True)
class Examples:
    """Pairs of latents (n, channels, height, width) and n prompts.

    An image may stand there several times: with several prompts, or flipped. `masks` (n, 1, height, width) in 0..1
    weigh the loss at each latent position; without them all count alike.

    Raises:
        MnemonError: there are none, or they do not pair.
    """

    latents: Tensor
    prompts: Sequence[str]
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) or len(self.latents) != len(self.prompts) or not len(self.latents):
            count = 1 if isinstance(self.prompts, str) else len(self.prompts)
            raise MnemonError(f"{len(self.latents)} images and {count} prompts: give a list of one prompt an image.")


def joined(parts: Sequence[Examples | None]) -> Examples | None:
    """All examples of `parts` in one; None if there are none."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    prompts = [prompt for one in given for prompt in one.prompts]
    masked = any(one.masks is not None for one in given)
    masks = torch.cat([whole_masks(one.latents, one.masks) for one in given]) if masked else None
    return Examples(torch.cat([one.latents for one in given]), prompts, masks)


def whole_masks(latents: Tensor, masks: Tensor | None) -> Tensor:
    """The masks of latents, ones where there are none."""
    return torch.ones_like(latents[:, :1]) if masks is None else masks


@dataclass(frozen=True)
class Batch:
    """The rows of one step, sampled as a whole before its parts are computed."""

    latents: Tensor  # (rows, channels, height, width)
    noise: Tensor  # (rows, channels, height, width)
    timesteps: Tensor  # (rows,)
    prompts: list[str]
    weights: Tensor  # (rows,); the loss is their weighted sum
    tasks: Tensor  # (rows,); number of the task each row belongs to
    shares: Tensor  # (rows,); 1 / rows of its task, times the parts of the step, over which means are taken
    masks: Tensor | None = None  # (rows, 1, height, width), where the loss is masked

    @staticmethod
    def cat(batches: Sequence["Batch"]) -> "Batch":
        """One batch of several, the rows of each marked as one task."""
        tensors = {
            name: torch.cat([getattr(batch, name) for batch in batches])
            for name in ("latents", "noise", "timesteps", "weights", "shares")
        }
        tasks = torch.cat([torch.full((len(batch.latents),), number) for number, batch in enumerate(batches)])
        masked = any(batch.masks is not None for batch in batches)
        masks = torch.cat([whole_masks(batch.latents, batch.masks) for batch in batches]) if masked else None
        prompts = [prompt for batch in batches for prompt in batch.prompts]
        return Batch(**tensors, prompts=prompts, tasks=tasks, masks=masks)

    def parts(self, count: int) -> Iterator["Batch"]:
        """The batch in `count` parts, in order."""
        for rows in torch.arange(len(self.latents)).tensor_split(count):
            prompts = [self.prompts[row] for row in rows]
            at = rows.to(self.latents.device)
            latents, noise, timesteps = self.latents[at], self.noise[at], self.timesteps[at]
            masks = None if self.masks is None else self.masks[at]
            weights, shares = self.weights[at], count * self.shares[at]
            yield Batch(latents, noise, timesteps, prompts, weights, self.tasks[rows], shares, masks)


def draw_batch(
    base: Base,
    examples: Examples,
    prior: Examples | None,
    prior_loss_weight: float,
    count: int,
    generator: torch.Generator,
) -> Batch:
    """`count` examples, with replacement, and as many prior ones if there are any.

    The loss of a batch is the mean over the examples plus `prior_loss_weight` times the mean over the prior ones.
    """
    sources = [(examples, 1.0)] + ([(prior, prior_loss_weight)] if prior else [])
    masked = examples.masks is not None
    latents, prompts, weights, masks = [], [], [], []
    for source, weight in sources:
        size = (count,)
        rows = torch.randint(len(source.latents), size, generator=generator, device=generator.device).cpu()
        latents.append(source.latents[rows.to(source.latents.device)])
        prompts += [source.prompts[row] for row in rows]
        if masked:
            own = None if source.masks is None else source.masks[rows.to(source.masks.device)]
            masks.append(whole_masks(latents[-1], own))
        weights.append(torch.full(size, weight / count))
    clean = torch.cat(latents).to(base.device, torch.float32)
    noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(base.device)
    timesteps = base.schedule.sample_timesteps(len(clean), generator).to(base.device)
    tasks, shares = torch.zeros(len(clean), dtype=torch.long), torch.full((len(clean),), 1 / len(clean))
    weighted, where = torch.cat(weights).to(base.device), torch.cat(masks).to(base.device) if masked else None
    return Batch(clean, noise, timesteps, prompts, weighted, tasks, shares.to(base.device), where)


def without_captions(batch: Batch, rate: float, generator: torch.Generator) -> Batch:
    """The batch with the empty prompt in place of about a share `rate` of its prompts, but for the first one."""
    dropped = torch.rand(len(batch.prompts), generator=generator, device=generator.device) < rate
    prompts = [
        "" if number and drop else prompt
        for number, (prompt, drop) in enumerate(zip(batch.prompts, dropped.tolist(), strict=True))
    ]
    return replace(batch, prompts=prompts)
