"""How much memory learning a concept and drawing with it take, told before anything is loaded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import nn

from mnemon.errors import MnemonError
from mnemon.methods.base import Learner, Method
from mnemon.models.pipeline import PipelineBase
from mnemon.models.quantised import KEPT, Quantised, Weights, quantise
from mnemon.models.transformer import TransformerBase
from mnemon.planning import rehearsal
from mnemon.planning.outline import META, outline, without_words

GB = 2**30
CARDS = (8, 12, 16, 24, 48, 80)
"""Memory of usual cards in GB."""
ROOM = 0.9
"""Share of a card that is planned with. The rest is left to the device's context, kernels' workspaces and the
allocator's fragments, none of which is rehearsed; an assumption."""
PHOTOS = 20
"""Photos whose latents are kept."""


@dataclass(frozen=True)
class Levers:
    """What memory depends on. `gradient_accumulation_steps` computes a batch in so many parts; `offload_text` lets text encoders rest in
    main memory while images are drawn, their prompts remembered."""

    weights: Weights = "fp32"
    checkpointing: bool = False
    batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    offload_text: bool = False


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for; in each of both they add up to the peak. `trained` counts parameters."""

    learning: Mapping[str, int]
    drawing: Mapping[str, int]
    trained: int

    @property
    def peak(self) -> int:
        """The most of both."""
        return max(sum(self.learning.values()), sum(self.drawing.values()))


class Plan:
    """The plan of one method on one base at one resolution; each setting of the levers is estimated from it.

    Args:
        base: as for `outline`.
        resolution: side in pixels; the base's own by default.

    Raises:
        MnemonError: there is no such base, the method does not run on it, or the resolution does not fit.
    """

    def __init__(self, base: str, method: Method, resolution: int | None = None) -> None:
        self.outline, self.method = outline(base), method
        self._asked = resolution
        self._rehearsed: dict[Any, Any] = {}
        self.resolution = self.base("bf16").resolution

    def base(self, weights: Weights, device: torch.device = META) -> PipelineBase:
        """The base as these weights make it; random where the device has bytes."""
        dtype, how = KEPT[weights]
        if device == META:
            return self._once(lambda: self._sized(dtype, how, META), "base", weights)
        return self._sized(dtype, how, device)

    def learner(self, weights: Weights) -> Learner:
        """What the method trains, on the meta device."""
        return self._once(lambda: rehearsal.begun(self.method, self.base(weights)), "learner", weights)

    def rows(self, levers: Levers) -> int:
        """Images computed at once."""
        batch_size = self.batch_size(levers)
        if not 1 <= levers.gradient_accumulation_steps <= batch_size:
            raise MnemonError(
                f"A batch of {batch_size} cannot be computed in {levers.gradient_accumulation_steps} parts."
            )
        return ceil(batch_size / levers.gradient_accumulation_steps)

    def batch_size(self, levers: Levers) -> int:
        """Images a step."""
        return self.method.batch_size if levers.batch_size is None else levers.batch_size

    def estimate(self, levers: Levers) -> Estimate:
        """What learning and drawing hold under these levers, in bytes.

        Raises:
            MnemonError: the method cannot be planned, or the batch not be cut so; text encoders of a U-Net are not
                offloaded.
        """
        rows, base, learner = self.rows(levers), self.base(levers.weights), self.learner(levers.weights)
        self._check_offload(levers)
        key = (levers.weights, rows, levers.checkpointing)
        step = self._once(lambda: rehearsal.step(base, learner, rows, levers.checkpointing), "step", *key)
        trained = rehearsal.trained(learner)
        most = max(step.peak, self._stage(rehearsal.encoding, levers))  # photos are encoded before the steps
        learning = {
            **_weights(base),
            "earlier concepts": 0 if self.method.on_bare_base else self._concepts(base, learner),
            "trained parameters": 4 * trained,
            "optimiser": 8 * trained,
            "latents of photos": PHOTOS * 4 * torch.Size(base.latent_shape()).numel(),
            "kept for the backward pass": step.kept,
            "gradients and passing": most - step.kept,
        }
        return Estimate(learning, self._drawing(base, learner, levers), trained)

    def further(self, levers: Levers) -> list[tuple[str, int]]:
        """The levers that are not pulled yet and help: the option, and the peak with it, the least first."""
        peak = self.estimate(levers).peak
        found = [(option, self.estimate(pulled).peak) for option, pulled in self._further(levers)]
        return sorted([one for one in found if one[1] < peak], key=lambda one: one[1])

    def _further(self, levers: Levers) -> Iterator[tuple[str, Levers]]:
        ways = list(KEPT)
        for weights in ways[ways.index(levers.weights) + 1 :]:
            yield f"--weights {weights}", replace(levers, weights=weights)
        if not levers.checkpointing:
            yield "--checkpointing", replace(levers, checkpointing=True)
        if self.rows(levers) > 1:
            batch_size = self.batch_size(levers)
            yield f"--accumulate {batch_size}", replace(levers, gradient_accumulation_steps=batch_size)
        if not levers.offload_text and issubclass(self.outline.family, TransformerBase):
            yield "--offload-text", replace(levers, offload_text=True)

    def _check_offload(self, levers: Levers) -> None:
        if levers.offload_text and not issubclass(self.outline.family, TransformerBase):
            family = self.outline.family.family
            raise MnemonError(f"The text encoders of a {family} base are small and stay: leave out --offload-text.")

    def _drawing(self, base: PipelineBase, learner: Learner, levers: Levers) -> dict[str, int]:
        """The weights there are, and the worst of the stages: hear the prompt, denoise, decode."""
        parts = _weights(base)
        passing = max(self._stage(stage, levers) for stage in (rehearsal.drawing, rehearsal.decoding))
        heard = self._stage(rehearsal.prompting, levers)
        if levers.offload_text:  # either the encoders are there, or what denoising and decoding take
            heard += sum(parts.pop(encoder.name) for encoder in base.encoders)
        return {**parts, "all concepts": self._concepts(base, learner), "passing": max(passing, heard)}

    def _concepts(self, base: PipelineBase, learner: Learner) -> int:
        """Folded in, concepts cost the original weights that are kept beside; composed for each prompt, their own."""
        deltas = learner.deltas()
        if self.method.per_prompt:
            return sum(delta.stored_bytes for delta in deltas.values())
        target_modules = base.target_modules()
        return sum(target_modules[target].weight.nbytes for target in deltas)

    def _stage(self, stage: Callable[[PipelineBase], int], levers: Levers) -> int:
        base = self.base(levers.weights)
        return self._once(lambda: stage(base), stage.__name__, levers.weights)

    def _sized(self, dtype: torch.dtype, how: Quantised | None, device: torch.device) -> PipelineBase:
        base = self.outline.base(dtype, device)
        if how:
            base = without_words(quantise(base, how, device))
        if self._asked is not None:
            _resize(base, self._asked)
        return base

    def _once(self, make: Callable[[], Any], *key: Any) -> Any:
        """Rehearsals take seconds: the same one is not made twice."""
        if key not in self._rehearsed:
            self._rehearsed[key] = make()
        return self._rehearsed[key]


def cards(peak: int) -> list[int]:
    """The usual cards, in GB, into which `peak` bytes fit."""
    return [card for card in CARDS if peak <= ROOM * card * GB]


def _weights(base: PipelineBase) -> dict[str, int]:
    """Bytes of each part."""
    encoders = {encoder.name: _bytes(encoder.model) for encoder in base.encoders}
    return {"denoiser": _bytes(base.denoiser), **encoders, "vae": _bytes(base.vae)}


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in {*module.parameters(), *module.buffers()})


def _resize(base: PipelineBase, side: int) -> None:
    if isinstance(base, TransformerBase):
        base.resolution = side
        return
    unet: Any = base.denoiser
    own = base.resolution // base.latent_shape()[1]
    step = own * 2 ** (len(unet.config.block_out_channels) - 1)
    if side < step or side % step:
        raise MnemonError(f"A {base.family} base draws images of a multiple of {step} pixels a side, not {side}.")
    unet.register_to_config(sample_size=side // own)
    base.resolution = side
