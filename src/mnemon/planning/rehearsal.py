"""One training step and one image, rehearsed on the meta device: what each holds at its peak."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mnemon.adapters import attach
from mnemon.errors import MnemonError
from mnemon.methods import Start
from mnemon.methods.base import Learner, Method, Step
from mnemon.models.pipeline import PipelineBase
from mnemon.planning.tracing import Held, gpu_attention
from mnemon.training.learner_group import LearnerGroup
from mnemon.training.loss import denoising_loss

NAME, NOUN = "rex", "dog"


@dataclass(frozen=True)
class Stepped:
    """Bytes of one training step.

    Attributes:
        kept: what the forward pass keeps for the backward pass.
        peak: the most that is held at once beside weights, trained parameters and optimiser: kept, gradients, passing.
    """

    kept: int
    peak: int


def begun(method: Method, base: PipelineBase) -> Learner:
    """A learner of the method for a first concept.

    Raises:
        MnemonError: the method looks at numbers, not shapes, before it knows what it trains.
    """
    try:
        with Held():
            return method.begin(Start(NAME, NOUN, base, [], torch.Generator().manual_seed(0)))
    except (RuntimeError, ValueError) as error:
        raise MnemonError(
            f"The method '{method.name}' chooses what it trains by looking at weights and images, so it cannot be "
            f"planned before they are there ({str(error).splitlines()[0]})."
        ) from error


def trained(learner: Learner) -> int:
    """Trained parameters, as a number."""
    with Held():  # a rate may depend on what the weights are
        return sum(parameter.numel() for group in learner.parameter_groups() for parameter in group["params"])


def step(base: PipelineBase, learner: Learner, rows: int, checkpointing: bool) -> Stepped:
    """One step of `rows` images, each with a prompt of its own; the penalty without earlier concepts."""
    group, generator = LearnerGroup([learner], shared=False), torch.Generator().manual_seed(0)
    held = _beside(base, learner)
    with _attached(base, learner), _checkpointed(base, checkpointing), gpu_attention(), held:
        kept = _forward_and_back(base, group, rows, generator, held)
    for parameter in learner.parameters():
        parameter.grad = None
    return Stepped(kept, held.peak)


def _forward_and_back(
    base: PipelineBase, group: LearnerGroup, rows: int, generator: torch.Generator, held: Held
) -> int:
    group.before_step(generator)
    base.set_tokens(group.tokens())
    latents, noise = (torch.empty(rows, *base.latent_shape(), device=base.device) for _ in range(2))
    timesteps = torch.full((rows,), 500.0, device=base.device).to(_clock(base))
    condition = base.encode_prompts(prompts(rows))
    loss = denoising_loss(base, latents, noise, timesteps, condition).sum()
    tasks = torch.zeros(rows, dtype=torch.long)
    seen = Step(base, latents, timesteps, partial(group.without, base), condition, tasks, 0.0)
    total = loss + group.regularization_loss(seen)
    kept = held.now
    total.backward()
    return kept


def _clock(base: PipelineBase) -> torch.dtype:
    return base.schedule.sample_timesteps(1, torch.Generator().manual_seed(0)).dtype


def encoding(base: PipelineBase) -> int:
    """Bytes held at the peak of turning one photo into latents."""
    with torch.no_grad(), gpu_attention(), _beside(base) as held:
        base.encode_images(torch.empty(1, 3, base.resolution, base.resolution, device=base.device))
    return held.peak


def prompting(base: PipelineBase) -> int:
    """Bytes held at the peak of encoding one prompt without concepts."""
    with torch.no_grad(), gpu_attention(), _beside(base) as held:
        base.encode_prompts(["a photo of a dog on the beach"])
    return held.peak


def drawing(base: PipelineBase) -> int:
    """Bytes held at the peak of one denoising step of one image, guided where the base is guided by a prompt."""
    rows = 1 if base.distilled else 2
    with torch.no_grad(), gpu_attention(), _beside(base) as held:
        condition = base.encode_prompts(prompts(rows, concept=False))
        held.peak = held.now
        latents = torch.empty(rows, *base.latent_shape(), device=base.device)
        timesteps = torch.full((rows,), 500.0, device=base.device).to(_clock(base))
        base.predict(latents, timesteps, condition.with_guidance(1.0) if base.distilled else condition)
    return held.peak


def decoding(base: PipelineBase) -> int:
    """Bytes held at the peak of turning one image's latents into the image."""
    with torch.no_grad(), gpu_attention(), _beside(base) as held:
        base.decode_latents(torch.empty(1, *base.latent_shape(), device=base.device))
    return held.peak


def prompts(rows: int, concept: bool = True) -> list[str]:
    """Distinct prompts of ten words or so; each is encoded on its own."""
    said = f"<{NAME}> {NOUN}" if concept else f"a {NOUN}"
    return [f"a photo of {said} on the beach, number {row}" for row in range(rows)]


@contextmanager
def _attached(base: PipelineBase, learner: Learner) -> Iterator[None]:
    with attach(base.target_modules(), learner.deltas()), base.using_tokens(base.tokens):
        yield


@contextmanager
def _checkpointed(base: PipelineBase, on: bool) -> Iterator[None]:
    if not on:
        yield
        return
    base.gradient_checkpointing(True)
    try:
        yield
    finally:
        base.gradient_checkpointing(False)


def _beside(base: PipelineBase, *more: nn.Module) -> Held:
    """Counts what is made beside the weights of the base and of `more`."""
    held = Held()
    for module in (base.denoiser, base.vae, *(encoder.model for encoder in base.encoders), *more):
        held.keep([*module.parameters(), *module.buffers()])
    return held
