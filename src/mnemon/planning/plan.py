"""How much GPU memory training a concept and sampling with it take, estimated before anything is loaded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import nn

from mnemon.errors import MnemonError
from mnemon.methods.base import Learner, Method
from mnemon.models.base import Base
from mnemon.models.quantization import PRECISIONS, Weights, quantize
from mnemon.models.transformer import TransformerBase
from mnemon.planning import dry_run
from mnemon.planning.empty_model import META, ModelConfigs, read_configs

GB = 2**30
GPU_SIZES = (8, 12, 16, 24, 48, 80)
"""Memory of common GPUs in GB."""
USABLE_SHARE = 0.9
"""Share of a GPU's memory that is planned with. The rest is for the device's context, kernels' workspaces and the
allocator's fragments, which a dry run does not see; an assumption."""
PHOTOS = 20
"""Photos whose latents are kept."""


@dataclass(frozen=True)
class MemoryOptions:
    """What memory depends on.

    Attributes:
        weights: how the base's weights are stored.
        gradient_checkpointing: recompute activations in the backward pass.
        batch_size: images per step; the method's own by default.
        gradient_accumulation_steps: parts in which a batch is computed.
        offload_text: keep text encoders in main memory while images are sampled, with their prompts cached.
        images_at_once: images sampled in one pass.
    """

    weights: Weights = "fp32"
    gradient_checkpointing: bool = False
    batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    offload_text: bool = False
    images_at_once: int = 1


@dataclass(frozen=True)
class Estimate:
    """Bytes by purpose; the rows of `training` and those of `sampling` each add up to the peak.

    Attributes:
        num_trained: trained parameters.
    """

    training: Mapping[str, int]
    sampling: Mapping[str, int]
    num_trained: int

    @property
    def peaks(self) -> tuple[int, int]:
        """Of training, and of sampling."""
        return sum(self.training.values()), sum(self.sampling.values())

    @property
    def peak(self) -> int:
        """The larger of both."""
        return max(self.peaks)


class Plan:
    """One method on one base at one resolution, to be estimated under any memory options.

    Args:
        base: as for `read_configs`, or what that gives.
        resolution: side in pixels; the base's own by default.

    Raises:
        MnemonError: there is no such base, the method does not run on it, or the resolution does not fit.
    """

    def __init__(self, base: str | ModelConfigs, method: Method, resolution: int | None = None) -> None:
        self.configs = read_configs(base) if isinstance(base, str) else base
        self.method = method
        self._given_resolution = resolution
        self._cache: dict[Any, Any] = {}
        self.resolution = self.base("bf16").resolution

    def base(self, weights: Weights, device: torch.device = META) -> Base:
        """The base with its weights stored in this way; random ones where the device has memory."""
        if device == META:
            return self._cached(lambda: self._empty_model(weights, META), "base", weights)
        return self._empty_model(weights, device)

    def learner(self, weights: Weights) -> Learner:
        """What the method trains, on the meta device."""
        return self._cached(lambda: dry_run.new_learner(self.method, self.base(weights)), "learner", weights)

    def rows(self, options: MemoryOptions) -> int:
        """Images computed at once."""
        batch_size, parts = self.batch_size(options), options.gradient_accumulation_steps
        if not 1 <= parts <= batch_size:
            raise MnemonError(f"A batch of {batch_size} cannot be computed in {parts} parts.")
        return ceil(batch_size / parts)

    @property
    def can_offload(self) -> bool:
        """Whether its text encoders may be kept in main memory while images are sampled."""
        return issubclass(self.configs.family, TransformerBase)

    def batch_size(self, options: MemoryOptions) -> int:
        """Images per step."""
        return self.method.batch_size if options.batch_size is None else options.batch_size

    def estimate(self, options: MemoryOptions) -> Estimate:
        """Bytes that training and sampling hold under these options.

        Raises:
            MnemonError: the batch has fewer images than parts, or text encoders of a U-Net are to be offloaded.
        """
        rows, base, learner = self.rows(options), self.base(options.weights), self.learner(options.weights)
        self._check_offload(options)
        checkpointing = options.gradient_checkpointing
        key = (options.weights, rows, checkpointing)
        step = self._cached(lambda: dry_run.training_step(base, learner, rows, checkpointing), "step", *key)
        num_trained = dry_run.num_trained(learner)
        peak = max(step.peak, self._stage(dry_run.encode_image, options))  # photos are encoded before the steps
        training = {
            **_weights(base),
            "earlier concepts": 0 if self.method.on_bare_base else self._concepts(base, learner) + _buffers(learner),
            "trained parameters": 4 * num_trained,
            "optimiser": 8 * num_trained,
            "latents of photos": PHOTOS * 4 * torch.Size(base.latent_shape()).numel(),
            "kept for the backward pass": step.saved,
            "gradients and passing": peak - step.saved,
        }
        return Estimate(training, self._sampling(base, learner, options), num_trained)

    def savings(self, options: MemoryOptions) -> list[tuple[str, int]]:
        """Further options that lower the peak: the command's option and the peak with it, the lowest first."""
        peak = self.estimate(options).peak
        peaks = [(option, self.estimate(changed).peak) for option, changed in self._further(options)]
        return sorted([pair for pair in peaks if pair[1] < peak], key=lambda pair: pair[1])

    def _further(self, options: MemoryOptions) -> Iterator[tuple[str, MemoryOptions]]:
        ways = list(PRECISIONS)
        for weights in ways[ways.index(options.weights) + 1 :]:
            yield f"--weights {weights}", replace(options, weights=weights)
        if not options.gradient_checkpointing:
            yield "--checkpointing", replace(options, gradient_checkpointing=True)
        if self.rows(options) > 1:
            batch_size = self.batch_size(options)
            yield f"--accumulate {batch_size}", replace(options, gradient_accumulation_steps=batch_size)
        if not options.offload_text and self.can_offload:
            yield "--offload-text", replace(options, offload_text=True)

    def _check_offload(self, options: MemoryOptions) -> None:
        if options.offload_text and not self.can_offload:
            family = self.configs.family.family
            raise MnemonError(f"The text encoders of a {family} base are small and stay: leave out --offload-text.")

    def _sampling(self, base: Base, learner: Learner, options: MemoryOptions) -> dict[str, int]:
        """The weights, and the most of what encoding the prompt, denoising and decoding hold."""
        parts = _weights(base)
        count = options.images_at_once
        images = max(self._stage(stage, options, count) for stage in (dry_run.denoise, dry_run.decode_image))
        prompt = self._stage(dry_run.encode_prompt, options)
        if options.offload_text:  # either the encoders are there, or what denoising and decoding take
            prompt += sum(parts.pop(encoder.name) for encoder in base.encoders)
        return {**parts, "all concepts": self._concepts(base, learner), "passing": max(images, prompt)}

    def _concepts(self, base: Base, learner: Learner) -> int:
        """Merged concepts cost a copy of the original weights; concepts composed per prompt cost their own deltas."""
        deltas = learner.deltas()
        if self.method.per_prompt:
            return sum(delta.stored_bytes for delta in deltas.values())
        target_modules = base.target_modules()
        return sum(target_modules[target].weight.nbytes for target in deltas)

    def _stage(self, stage: Callable[..., int], options: MemoryOptions, *counts: int) -> int:
        base = self.base(options.weights)
        return self._cached(lambda: stage(base, *counts), stage.__name__, options.weights, *counts)

    def _empty_model(self, weights: Weights, device: torch.device) -> Base:
        dtype, how = PRECISIONS[weights]
        base = self.configs.empty_model(dtype, device)
        base = quantize(base, how, device) if how else base
        if self._given_resolution is not None:
            _set_resolution(base, self._given_resolution)
        return base

    def _cached(self, compute: Callable[[], Any], *key: Any) -> Any:
        """A dry run takes seconds."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]


def fitting_gpus(peak: int) -> list[int]:
    """The GPU sizes, in GB, into which `peak` bytes fit."""
    return [size for size in GPU_SIZES if peak <= USABLE_SHARE * size * GB]


def _weights(base: Base) -> dict[str, int]:
    """Bytes of each part."""
    encoders = {encoder.name: _bytes(encoder.model) for encoder in base.encoders}
    return {"denoiser": _bytes(base.denoiser), **encoders, "vae": _bytes(base.vae)}


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in {*module.parameters(), *module.buffers()})


def _buffers(learner: nn.Module) -> int:
    """Bytes of what a learner knows of earlier concepts."""
    return sum(tensor.nbytes for tensor in learner.buffers())


def _set_resolution(base: Base, side: int) -> None:
    if isinstance(base, TransformerBase):
        base.resolution = side
        return
    unet: Any = base.denoiser
    vae_scale = base.resolution // base.latent_shape()[1]
    multiple = vae_scale * 2 ** (len(unet.config.block_out_channels) - 1)
    if side < multiple or side % multiple:
        raise MnemonError(
            f"A {base.family} base generates images of a multiple of {multiple} pixels a side, not {side}."
        )
    unet.register_to_config(sample_size=side // vae_scale)
    base.resolution = side
