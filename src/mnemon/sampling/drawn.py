"""Pictures that the model itself draws, to be trained on or looked at while a concept is learned."""

from collections.abc import Sequence

from mnemon.data.captions import diverse_captions
from mnemon.methods.base import Learned, Method
from mnemon.models.base import Base
from mnemon.sampling.composing import Composed
from mnemon.sampling.drawing import draw
from mnemon.training import Examples

GUIDANCE, STEPS = 4.0, 30
CALIBRATION = 64  # pictures of diverse things


def class_pictures(base: Base, prompt: str, count: int, seed: int) -> Examples:
    """`count` pictures of a concept's class by the bare base, for prior preservation."""
    seeds = range(seed + 10_000, seed + 10_000 + count)
    pictures = draw(base, [prompt] * count, seeds=seeds, guidance=GUIDANCE, steps=STEPS)
    return Examples(base.encode_images(pictures), [prompt] * count)


def rehearsed(base: Base, method: Method, earlier: Sequence[Learned], seed: int) -> Examples | None:
    """`method.rehearsal` pictures of every earlier concept, drawn by the model that has learned them; None for none."""
    prompts = [f"a photo of {method.prompt_name(one.name, one.noun)}" for one in earlier] * method.rehearsal
    if not prompts:
        return None
    seeds = range(seed + 20_000, seed + 20_000 + len(prompts))
    with Composed(base, method, earlier) as composed:
        pictures = composed.draw(prompts, seeds=seeds, guidance=GUIDANCE, steps=STEPS)
    return Examples(base.encode_images(pictures), prompts)


def calibration(base: Base, method: Method, seed: int = 0) -> Examples | None:
    """Pictures of diverse things by the bare base, for methods that ask for them; None for the others."""
    if not method.needs_calibration:
        return None
    captions = diverse_captions(base.known_words, CALIBRATION, seed)
    pictures = draw(base, captions, seeds=range(30_000, 30_000 + CALIBRATION), guidance=GUIDANCE, steps=STEPS)
    return Examples(base.encode_images(pictures), captions)
