"""What a concept is trained on: its photos as latents, each with a prompt."""

from dataclasses import dataclass
from typing import Any

import torch

from mnemon.data import Concept, photos_tensor
from mnemon.data.tensors import Fit
from mnemon.methods.base import Method
from mnemon.models import Base
from mnemon.training import Examples
from mnemon.training.prompts import training_prompts

CROPS = 4  # of each photo, where random crops are asked for


@dataclass(frozen=True)
class PhotoSettings:
    """How photos become squares: `fit` "crop" or "pad"; `flip` adds each one mirrored; `random_crop` takes four squares
    of each, at random places, instead of the middle one (with `flip`, every second one mirrored)."""

    fit: Fit = "crop"
    flip: bool = False
    random_crop: bool = False


def examples_of(
    base: Base, method: Method, concept: Concept, photos: PhotoSettings | None = None, seed: int = 0
) -> Examples:
    """The concept's photos as latents, encoded once, with a prompt for each; `seed` places random crops."""
    photos, generator = photos or PhotoSettings(), torch.Generator().manual_seed(seed)
    draws = CROPS if photos.random_crop else 2 if photos.flip else 1
    crop: dict[str, Any] = {"fit": photos.fit, "random_crop": photos.random_crop, "generator": generator}
    variants = [photos_tensor(concept, base.resolution, **crop) for _ in range(draws)]
    if photos.flip:  # not by chance: of few photos, chance may well mirror all or none
        variants[1::2] = [variant.flip(-1) for variant in variants[1::2]]
    latents = torch.cat([base.encode_images(image[None]) for variant in variants for image in variant])
    rows, prompts = training_prompts(concept, method)
    count = len(concept.photos)
    return Examples(latents[[row + count * sample for sample in range(draws) for row in rows]], prompts * draws)
