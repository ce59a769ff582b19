"""What drawing costs with many concepts in the model, and how fast pictures are scored."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Bench, Result, median, now, seconds, stand_ins
from mnemon.metrics import Encoders, settings_for
from mnemon.metrics.prompts import PROMPTS
from mnemon.models.unet import UNetBase
from mnemon.sampling import Composed, draw

GOAL = 1.03


def drawing(bench: Bench) -> list[Result]:
    """The same number of pictures with all concepts in one copy of the base and with none in the other, in turn."""
    seeds = range(bench.sizes.pictures)
    options: dict[str, Any] = {"seeds": seeds, "guidance": 4.0, "steps": bench.sizes.sampling_steps}
    bare = ["a photo of a mug on the beach"] * len(seeds)
    results = []
    for name, method in bench.methods.items():
        learned = stand_ins(bench.base, method, bench.sizes.concepts, bench.seed)
        told = [f"a photo of {method.prompt_name('c0', 'mug')} on the beach"] * len(seeds)
        began = now(bench.base)
        with Composed(bench.base, method, learned) as composed:
            composing = now(bench.base) - began
            pairs = [
                (
                    seconds(bench.base, lambda: composed.draw(told, **options)),  # noqa: B023 (called at once)
                    seconds(bench.bare, lambda: draw(bench.bare, bare, **options)),
                )
                for _ in range(1 + 2 * bench.sizes.rounds)
            ][1:]
        ratios = [ours / theirs for ours, theirs in pairs]
        details = {
            "composing_seconds": composing,
            "bare_pictures_per_second": len(seeds) / statistics.median(t for _, t in pairs),
        }
        title = f"{name}: drawing with {len(learned)} concepts / bare base"
        results.append(median(title, "ratio", ratios, GOAL, details))
    return results


def scoring(bench: Bench, encoders: Encoders) -> list[Result]:
    """Drawing and encoding the general prompts in batches, against a diffusers pipeline called once for each prompt.

    Both use one scheduler, number of steps and guidance; the peer's pictures are encoded in one batch too.
    """
    settings = settings_for(encoders)
    prompts = list(PROMPTS[settings.prompts].general)[: bench.sizes.pictures]
    assert isinstance(bench.bare, UNetBase)
    pipeline = bench.bare.pipeline()
    pipeline.scheduler = bench.bare.sampling_scheduler()
    pipeline.set_progress_bar_config(disable=True)

    def batched() -> Tensor:
        return draw(
            bench.bare,
            prompts,
            seeds=range(len(prompts)),
            guidance=settings.guidance,
            steps=bench.sizes.sampling_steps,
            batch=settings.batch,
        )

    def singly() -> Tensor:
        pictures = [_one(pipeline, prompt, seed, bench.sizes.sampling_steps, settings.guidance)
                    for seed, prompt in enumerate(prompts)]  # fmt: skip
        return torch.cat(pictures).cpu()

    def rate(drawn: Callable[[], Tensor]) -> float:
        return len(prompts) / seconds(bench.bare, lambda: _encode(encoders, drawn()))

    pairs = [(rate(batched), rate(singly)) for _ in range(1 + bench.sizes.rounds)][1:]
    ours, theirs = ([pair[which] for pair in pairs] for which in (0, 1))
    return [
        median("scored pictures, in batches", "pictures / s", ours),
        median("scored pictures, one pipeline call a prompt", "pictures / s", theirs),
        median("in batches / one call a prompt", "times as fast", [a / b for a, b in pairs]),
    ]


def _one(pipeline: Any, prompt: str, seed: int, steps: int, guidance: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    options = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": generator}
    return pipeline(prompt, output_type="pt", **options).images


def _encode(encoders: Encoders, pictures: Tensor) -> None:
    encoders.image(pictures)
    encoders.identity(pictures)
