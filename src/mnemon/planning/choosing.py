"""What `learn` picks so that training and scoring fit a GPU's memory."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mnemon.errors import MnemonError
from mnemon.models.quantization import PRECISIONS, Weights
from mnemon.planning.plan import GB, GPU_SIZES, USABLE_SHARE, Estimate, MemoryOptions, Plan

UNASKED: tuple[Weights, ...] = ("fp32", "bf16", "8bit")
"""Precisions that are picked without being asked for; 4 bits change images more, and need an extra."""
SCORING = int(0.7 * GB)
"""What CLIP ViT-B/32 and DINO ViT-S/16 take beside the base while it is scored, in fp32."""


PLANNED = ("weights", "batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "offload_text")
"""The options that a user may set."""


@dataclass(frozen=True)
class Choice:
    """Options that fit, and what they take.

    Attributes:
        room: bytes of the GPU that are planned with.
        changed: what of the wishes had to give way, in words.
    """

    options: MemoryOptions
    estimate: Estimate
    room: int
    changed: tuple[str, ...]

    @property
    def peaks(self) -> tuple[int, int]:
        """Of training, and of scoring, in bytes."""
        training, sampling = self.estimate.peaks
        return training, sampling + SCORING

    @property
    def peak(self) -> int:
        """The larger of both."""
        return max(self.peaks)

    def __str__(self) -> str:
        """In one line: what was picked, why, and what it takes."""
        options, parts = self.options, self.options.gradient_accumulation_steps
        how = [
            f"weights in {options.weights}",
            f"batch {options.batch_size}" + (f" in {parts} parts" if parts > 1 else ""),
            *(["gradient checkpointing"] if options.gradient_checkpointing else []),
            f"{options.images_at_once} images at once for scores",
            *(["text encoders in main memory meanwhile"] if options.offload_text else []),
        ]
        why = f"to fit: {', '.join(self.changed)}" if self.changed else "what suits the base, and fits"
        return f"{', '.join(how)} ({why}); {_gb(self.peak)} of {_gb(self.room)} GB by the count of `mnemon plan`"


def wishes(plan: Plan, given: Mapping[str, Any]) -> tuple[MemoryOptions, set[str]]:
    """The options to begin with, those `given` and otherwise the profile's, and which of them are fixed."""
    profile, own = plan.base("bf16").profile, {name: given[name] for name in PLANNED if given.get(name) is not None}
    values = {"weights": profile.weights, "batch_size": plan.method.batch_size, **profile.training(), **own}
    options = {name: values[name] for name in PLANNED if name in values}
    return MemoryOptions(**options, images_at_once=profile.images_at_once or 8), set(own)


def choose(plan: Plan, wanted: MemoryOptions, fixed: Collection[str], memory: float) -> Choice:
    """The first options, from those `wanted` on, under which `plan` fits.

    What gives way, in this order: activations are recomputed; a step's batch is computed in more parts; fewer images
    are sampled at once; text encoders leave the GPU while images are sampled; and, if all this is not enough, the
    weights are bf16 or 8 bits.

    Args:
        wanted: by the user and the base's profile.
        fixed: names of those options that the user set, and that are kept.
        memory: of the GPU in GB, of which `USABLE_SHARE` is planned with.

    Raises:
        MnemonError: nothing fits; the nearest that does is said.
    """
    room = int(USABLE_SHARE * memory * GB)
    for weights in _precisions(wanted, fixed):
        options = replace(wanted, weights=weights)
        if _least(plan, options, fixed).peak > room:  # one dry run instead of all
            continue
        for training in _training_ways(plan, options, fixed):
            if plan.estimate(replace(training, images_at_once=1)).peaks[0] <= room:
                break
        else:
            continue
        for way in _sampling_ways(plan, training, fixed):
            choice = Choice(way, plan.estimate(way), room, _changes(wanted, way))
            if choice.peak <= room:
                return choice
    raise MnemonError(_too_large(plan, wanted, fixed, memory))


def _precisions(wanted: MemoryOptions, fixed: Collection[str]) -> list[Weights]:
    if "weights" in fixed:
        return [wanted.weights]
    return list(UNASKED[UNASKED.index(wanted.weights) :]) if wanted.weights in UNASKED else [wanted.weights]


def _training_ways(plan: Plan, options: MemoryOptions, fixed: Collection[str]) -> Iterator[MemoryOptions]:
    """From the wished on, less memory with each."""
    yield options
    if "gradient_checkpointing" not in fixed:
        options = replace(options, gradient_checkpointing=True)
        yield options
    if "gradient_accumulation_steps" in fixed:
        return
    parts, batch_size = options.gradient_accumulation_steps, plan.batch_size(options)
    while parts < batch_size:
        parts = min(2 * parts, batch_size)
        yield replace(options, gradient_accumulation_steps=parts)


def _sampling_ways(plan: Plan, options: MemoryOptions, fixed: Collection[str]) -> Iterator[MemoryOptions]:
    images = options.images_at_once
    while images:
        yield replace(options, images_at_once=images)
        images //= 2
    if plan.can_offload and "offload_text" not in fixed:
        yield replace(options, images_at_once=1, offload_text=True)


def _least(plan: Plan, options: MemoryOptions, fixed: Collection[str]) -> Choice:
    """What takes least with these weights."""
    *_, training = _training_ways(plan, options, fixed)
    *_, least = _sampling_ways(plan, training, fixed)
    return Choice(least, plan.estimate(least), 0, ())


def _changes(wanted: MemoryOptions, chosen: MemoryOptions) -> tuple[str, ...]:
    said = {
        "weights": f"weights in {chosen.weights}",
        "gradient_checkpointing": "gradient checkpointing",
        "gradient_accumulation_steps": f"batch in {chosen.gradient_accumulation_steps} parts",
        "images_at_once": f"{chosen.images_at_once} images at once for scores",
        "offload_text": "text encoders in main memory while scoring",
    }
    return tuple(text for name, text in said.items() if getattr(wanted, name) != getattr(chosen, name))


def _too_large(plan: Plan, wanted: MemoryOptions, fixed: Collection[str], memory: float) -> str:
    """The nearest that fits: what is not picked unasked, or what the user holds fixed, or a larger GPU."""
    weights = _precisions(wanted, fixed)[-1]
    least = _least(plan, replace(wanted, weights=weights), fixed)
    text = (
        f"'{plan.configs.name}' with {plan.method.name} does not fit {memory:g} GB, of which a tenth is left free: it "
        f"takes {_gb(least.peak)} GB at the least with weights in {weights}"
    )
    room = USABLE_SHARE * memory * GB
    for lower in list(PRECISIONS)[list(PRECISIONS).index(weights) + 1 :]:
        if (own := _least(plan, replace(wanted, weights=lower), fixed)).peak <= room:
            return f"{text}. With --weights {lower} it takes {_gb(own.peak)} GB."
    if fixed and (free := _least(plan, replace(wanted, weights="8bit", batch_size=1), ())).peak <= room:
        return f"{text} and what else is set. Left to choose, {_gb(free.peak)} GB are enough, with batch size 1."
    sizes = [size for size in GPU_SIZES if least.peak <= USABLE_SHARE * size * GB]
    return f"{text}, which fits " + (f"a GPU of {sizes[0]} GB." if sizes else "no usual GPU.")


def _gb(size: int) -> str:
    return f"{size / GB:.1f}"
