"""Training images that the model generates itself: class images, generative replay, calibration."""

from collections.abc import Sequence

from mnemon.data.captions import diverse_captions
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base
from mnemon.sampling.composing import Composed
from mnemon.sampling.sampler import SamplingSettings, fitted, sample
from mnemon.training.examples import Examples

SAMPLING = SamplingSettings(guidance_scale=4.0, num_inference_steps=30, batch_size=16)
CALIBRATION = 64  # images of diverse things


def class_images(base: Base, prompt: str, count: int, seed: int, sampling: SamplingSettings | None = None) -> Examples:
    """`count` images of a concept's class by the bare base, for prior preservation."""
    seeds = range(seed + 10_000, seed + 10_000 + count)
    images = sample(base, [prompt] * count, seeds, sampling or fitted(SAMPLING, base))
    return Examples(base.encode_images(images), [prompt] * count)


def replay_images(
    base: Base, method: Method, earlier: Sequence[TrainedConcept], seed: int, sampling: SamplingSettings | None = None
) -> Examples | None:
    """`method.num_replay_images` images of every earlier concept, by the model that has learned them; None for none."""
    names = [method.prompt_name(concept.name, concept.class_noun) for concept in earlier]
    prompts = [f"a photo of {name}" for name in names] * method.num_replay_images
    if not prompts:
        return None
    seeds = range(seed + 20_000, seed + 20_000 + len(prompts))
    with Composed(base, method, earlier) as composed:
        images = composed.sample(prompts, seeds, sampling or fitted(SAMPLING, base))
    return Examples(base.encode_images(images), prompts)


def calibration_images(
    base: Base, method: Method, seed: int = 0, sampling: SamplingSettings | None = None
) -> Examples | None:
    """Images of diverse things by the bare base, for methods that need them; None for the others."""
    if not method.needs_calibration:
        return None
    captions = diverse_captions(base.single_token_words, CALIBRATION, seed)
    images = sample(base, captions, range(30_000, 30_000 + CALIBRATION), sampling or fitted(SAMPLING, base))
    return Examples(base.encode_images(images), captions)
