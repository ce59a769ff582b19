"""A dry run of one training step and of one image on the meta device: what each holds at its peak."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mnemon.adapters import attach
from mnemon.methods import Start
from mnemon.methods.base import Learner, Method, Step, TrainedConcept
from mnemon.models.base import Base
from mnemon.planning.memory_tracker import MemoryTracker, gpu_attention
from mnemon.training.learner_group import LearnerGroup
from mnemon.training.loss import denoising_loss

NAME, NOUN = "rex", "dog"
EARLIER = "tom"
"""The concept that was learned before."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step.

    Attributes:
        saved: what the forward pass saves for the backward pass.
        peak: the most held at once beside weights, trained parameters and optimiser: saved activations, gradients and
            intermediate results.
    """

    saved: int
    peak: int


def new_learner(method: Method, base: Base) -> Learner:
    """The method's learner for a second concept; for a first one, where what is stored of it depends on values."""
    with MemoryTracker():
        try:
            earlier = [_exported(method, base)] if not method.trains_jointly else []
        except (RuntimeError, ValueError):  # masks without places, lists of numbers that are not there
            earlier = []
        return method.begin(Start(NAME, NOUN, base, earlier, torch.Generator().manual_seed(0)))


def _exported(method: Method, base: Base) -> TrainedConcept:
    generator = torch.Generator().manual_seed(0)
    learner = method.begin(Start(EARLIER, "cat", base, [], generator)).eval()
    learner.before_step(generator)
    return learner.export()


def num_trained(learner: Learner) -> int:
    """Number of trained parameters."""
    with MemoryTracker():  # a learning rate may depend on weights
        return sum(parameter.numel() for group in learner.parameter_groups() for parameter in group["params"])


def training_step(base: Base, learner: Learner, rows: int, checkpointing: bool) -> StepMemory:
    """One step of `rows` images, each with its own prompt, and the regularization loss."""
    group, generator = LearnerGroup([learner], shared=False), torch.Generator().manual_seed(0)
    tracker = _tracker(base, learner)
    attached = attach(base.target_modules(), learner.deltas())
    with attached, base.using_tokens(base.tokens), _checkpointed(base, checkpointing), gpu_attention(), tracker:
        saved = _forward_and_backward(base, group, rows, generator, tracker)
    for parameter in learner.parameters():
        parameter.grad = None
    return StepMemory(saved, tracker.peak)


def _forward_and_backward(
    base: Base, group: LearnerGroup, rows: int, generator: torch.Generator, tracker: MemoryTracker
) -> int:
    """Bytes saved for the backward pass."""
    group.before_step(generator)
    tokens = group.tokens()
    earlier = {encoder: vectors.detach() for encoder, vectors in tokens[NAME].items()}
    base.set_tokens({EARLIER: earlier, **tokens})
    latents, noise = (torch.empty(rows, *base.latent_shape(), device=base.device) for _ in range(2))
    timesteps = _timesteps(base, rows)
    condition = base.encode_prompts(prompts(rows))
    loss = denoising_loss(base, latents, noise, timesteps, condition).sum()
    tasks, shares = torch.zeros(rows, dtype=torch.long), torch.full((rows,), 1 / rows, device=base.device)
    step = Step(base, latents, timesteps, partial(group.without, base), condition, tasks, shares, 0.0)
    total = loss + group.regularization_loss(step)
    saved = tracker.current
    total.backward()
    return saved


def _timesteps(base: Base, rows: int) -> torch.Tensor:
    dtype = base.schedule.sample_timesteps(1, torch.Generator().manual_seed(0)).dtype
    return torch.full((rows,), 500.0, device=base.device).to(dtype)


def encode_image(base: Base) -> int:
    """Peak bytes of encoding one photo into latents."""
    with torch.no_grad(), gpu_attention(), _tracker(base) as tracker:
        base.encode_images(torch.empty(1, 3, base.resolution, base.resolution, device=base.device))
    return tracker.peak


def encode_prompt(base: Base) -> int:
    """Peak bytes of encoding one prompt without concepts."""
    with torch.no_grad(), gpu_attention(), _tracker(base) as tracker:
        base.encode_prompts(["a photo of a dog on the beach"])
    return tracker.peak


def denoise(base: Base, images: int = 1) -> int:
    """Peak bytes of one denoising step of `images`, with classifier-free guidance unless the base is distilled."""
    rows = images if base.distilled else 2 * images
    with torch.no_grad(), gpu_attention(), _tracker(base) as tracker:
        condition = base.encode_prompts(prompts(rows, concept=False))
        tracker.peak = tracker.current
        latents = torch.empty(rows, *base.latent_shape(), device=base.device)
        base.predict(latents, _timesteps(base, rows), condition.with_guidance(1.0) if base.distilled else condition)
    return tracker.peak


def decode_image(base: Base, images: int = 1) -> int:
    """Peak bytes of decoding the latents of `images`."""
    with torch.no_grad(), gpu_attention(), _tracker(base) as tracker:
        base.decode_latents(torch.empty(images, *base.latent_shape(), device=base.device))
    return tracker.peak


def prompts(rows: int, concept: bool = True) -> list[str]:
    """Distinct prompts of about ten words; equal ones would be encoded once."""
    subject = f"<{NAME}> {NOUN}" if concept else f"a {NOUN}"
    return [f"a photo of {subject} on the beach, number {row}" for row in range(rows)]


@contextmanager
def _checkpointed(base: Base, on: bool) -> Iterator[None]:
    base.gradient_checkpointing(on)
    try:
        yield
    finally:
        base.gradient_checkpointing(False)


def _tracker(base: Base, *more: nn.Module) -> MemoryTracker:
    """Counts what is allocated beside the weights of the base and of `more`."""
    tracker = MemoryTracker()
    for module in (base.denoiser, base.vae, *(encoder.model for encoder in base.encoders), *more):
        tracker.ignore([*module.parameters(), *module.buffers()])
    return tracker
