"""What drawing costs with many concepts in the model, and how fast images are scored."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.prompts import prompt_set
from mnemon.methods import Method, TrainedConcept
from mnemon.models import Base
from mnemon.models.unet import UNetBase
from mnemon.sampling import Composed, SamplingSettings, sample
from mnemon.sampling.precision import bf16_autocast
from scripts.common import Bench, Result, median, now, seconds, stand_ins

GOAL = 1.03
MANY_GOAL = 1.05
PLACES = ("on the beach", "in the snow", "in the desert", "at night")


def drawing(bench: Bench) -> list[Result]:
    """The same number of images with all concepts in one copy of the base and with none in the other, in turn.

    Of methods that combine the concepts anew for each prompt, see `drawing_by_prompt`.
    """
    options = _options(bench)
    bare = ["a photo of a mug on the beach"] * bench.sizes.images
    results = []
    for name, method in bench.methods.items():
        if method.per_prompt:
            continue
        learned = stand_ins(bench.base, method, bench.sizes.concepts, bench.seed)
        prompts = [f"a photo of {method.prompt_name('c0', 'mug')} on the beach"] * bench.sizes.images
        began = now(bench.base)
        with Composed(bench.base, method, learned) as composed:
            composing = now(bench.base) - began
            pairs = _in_turn(
                bench, partial(composed.sample, prompts, *options), partial(sample, bench.bare, bare, *options)
            )
        details = {
            "composing_seconds": composing,
            "bare_pictures_per_second": bench.sizes.images / statistics.median(theirs for _, theirs in pairs),
        }
        title = f"{name}: drawing with {len(learned)} concepts / bare base"
        results.append(median(title, "ratio", [ours / theirs for ours, theirs in pairs], GOAL, details))
    return results


def drawing_by_prompt(bench: Bench) -> list[Result]:
    """Of methods that combine the concepts anew for each prompt: the same images with many concepts in one copy of
    the base and with one in the other, in turn.

    There are four prompts; combining the concepts, once for each of them, is within the time that is measured.
    """
    count = bench.sizes.images
    results = []
    for name, method in bench.methods.items():
        if not method.per_prompt:
            continue
        learned = stand_ins(bench.base, method, bench.sizes.concepts, bench.seed)
        prompts = [
            f"a photo of {method.prompt_name('c0', 'mug')} {PLACES[index % len(PLACES)]}" for index in range(count)
        ]
        many = partial(_afresh, bench, bench.base, method, learned, prompts)
        pairs = _in_turn(bench, many, partial(_afresh, bench, bench.bare, method, learned[:1], prompts))
        details = {"pictures_per_second_with_one": count / statistics.median(one for _, one in pairs)}
        title = f"{name}: drawing with {len(learned)} concepts / with one"
        results.append(median(title, "ratio", [many / one for many, one in pairs], MANY_GOAL, details))
    return results


def _options(bench: Bench) -> tuple[Sequence[int], SamplingSettings]:
    """Seeds and settings."""
    settings = SamplingSettings(num_inference_steps=bench.sizes.sampling_steps, batch_size=16)
    return range(bench.sizes.images), settings


def _afresh(bench: Bench, base: Base, method: Method, learned: list[TrainedConcept], prompts: list[str]) -> None:
    """Draw with the concepts, none of them combined yet."""
    with Composed(base, method, learned) as composed:
        composed.sample(prompts, *_options(bench))


def _in_turn(bench: Bench, ours: Callable[[], object], peer: Callable[[], object]) -> list[tuple[float, float]]:
    """Seconds of ours on the base and of the peer on its copy; the first pair is not counted."""
    pairs = [(seconds(bench.base, ours), seconds(bench.bare, peer)) for _ in range(1 + 2 * bench.sizes.rounds)]
    return pairs[1:]


def scoring(bench: Bench, encoders: Encoders) -> list[Result]:
    """Drawing and encoding the general prompts in batches, against a diffusers pipeline called once for each prompt.

    Both use one scheduler, number of steps and guidance; the peer's images are encoded in one batch too.
    """
    settings = EvalSettings()
    prompts = list(prompt_set(encoders.prompts).control)[: bench.sizes.images]
    assert isinstance(bench.bare, UNetBase)
    pipeline = bench.bare.pipeline()
    pipeline.scheduler = bench.bare.schedule.sampling_scheduler()
    pipeline.set_progress_bar_config(disable=True)

    def batched() -> Tensor:
        with bf16_autocast(bench.bare):
            sampling = SamplingSettings(
                settings.guidance_scale, bench.sizes.sampling_steps, batch_size=settings.batch_size
            )
            return sample(bench.bare, prompts, range(len(prompts)), sampling)

    def singly() -> Tensor:
        images = [_one(pipeline, prompt, seed, bench.sizes.sampling_steps, settings.guidance_scale)
                    for seed, prompt in enumerate(prompts)]  # fmt: skip
        return torch.cat(images).cpu()

    def images_per_second(drawn: Callable[[], Tensor]) -> float:
        return len(prompts) / seconds(bench.bare, lambda: _encode(encoders, drawn()))

    pairs = [(images_per_second(batched), images_per_second(singly)) for _ in range(1 + bench.sizes.rounds)][1:]
    ours, theirs = ([pair[which] for pair in pairs] for which in (0, 1))
    return [
        median("scored images, in batches", "images / s", ours),
        median("scored images, one pipeline call a prompt", "images / s", theirs),
        median("in batches / one call a prompt", "times as fast", [a / b for a, b in pairs]),
    ]


def _one(pipeline: Any, prompt: str, seed: int, steps: int, guidance_scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    options = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "generator": generator}
    return pipeline(prompt, output_type="pt", **options).images


def _encode(encoders: Encoders, images: Tensor) -> None:
    encoders.image(images)
    encoders.identity(images)
