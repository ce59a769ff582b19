"""The built-in base's figures, measured on held-out prompts and seeds, and the gates they must pass."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.world.attributes import ATTRIBUTES
from mnemon.world.captions import with_article
from mnemon.world.encoder import ImageEncoder
from mnemon.world.recipe.encoders import both_nouns

GATES: dict[str, float] = {
    "noun_accuracy": 0.95,
    "background_accuracy": 0.95,
    "colour_accuracy": 0.85,
    "pattern_accuracy": 0.80,
    "two_object_accuracy": 0.75,
    "autoencoder_psnr_db": 26.0,
    "reconstruction_identity_ratio": 0.9,
    "single_lora_identity_ratio": 0.8,
    "identity_top1_of_200": 0.95,
}
"""The lowest value of each figure that passes."""

Sampler = Callable[[Sequence[str]], Tensor]
"""Prompts to images (n, 3, 64, 64) in -1..1, each from a new seed."""


def misses(figures: dict[str, float]) -> list[str]:
    """One sentence for every figure below its gate."""
    return [
        f"{name} is {figures[name]:.3f}, its gate {least}"
        for name, least in GATES.items()
        if name in figures and figures[name] < least
    ]


def require(stage: str, figures: dict[str, float], *, force: bool) -> None:
    """Stop before the next stage if this one missed a gate, unless forced.

    Raises:
        MnemonError: a gate was missed and `force` is off.
    """
    missed = misses(figures)
    if missed and not force:
        raise MnemonError(
            f"The stage '{stage}' missed its gate: {'; '.join(missed)}. Give it more steps, or go on with --force."
        )


def single_prompts(count: int, seed: int) -> tuple[list[str], dict[str, Tensor]]:
    """Prompts that name noun, colour, pattern and background, and the class numbers of each."""
    rng = np.random.default_rng((seed, 99))
    numbers = {name: torch.from_numpy(rng.integers(len(words), size=count)) for name, words in ATTRIBUTES.items()}
    prompts = []
    for row in range(count):
        word = {name: words[int(numbers[name][row])] for name, words in ATTRIBUTES.items()}
        thing = with_article(f"{word['colour']} {word['pattern']} {word['noun']}")
        prompts.append(f"{thing} {word['background']}")
    return prompts, numbers


def pair_prompts(count: int, seed: int) -> tuple[list[str], Tensor]:
    """Prompts for two things of different nouns, and the nouns present, (count, nouns)."""
    rng = np.random.default_rng((seed, 98))
    nouns, colours, places = ATTRIBUTES["noun"], ATTRIBUTES["colour"], ATTRIBUTES["background"]
    couples = list(itertools.permutations(range(len(nouns)), 2))
    present = torch.zeros(count, len(nouns), dtype=torch.uint8)
    prompts = []
    for row in range(count):
        one, two = couples[int(rng.integers(len(couples)))]
        present[row, [one, two]] = 1
        things = [with_article(f"{rng.choice(colours)} {nouns[number]}") for number in (one, two)]
        prompts.append(f"{things[0]} and {things[1]} {rng.choice(places)}")
    return prompts, present


@torch.no_grad()
def sampling_figures(sample: Sampler, judge: ImageEncoder, *, count: int, seed: int) -> dict[str, float]:
    """Share of sampled images that show what the prompt names, by the judge."""
    prompts, numbers = single_prompts(count, seed)
    logits = judge.classify(sample(prompts))
    figures = {
        f"{name}_accuracy": float((logits[name].argmax(1) == numbers[name]).float().mean()) for name in ATTRIBUTES
    }
    prompts, present = pair_prompts(count, seed)
    figures["two_object_accuracy"] = float(both_nouns(judge, sample(prompts), present).mean())
    return figures
