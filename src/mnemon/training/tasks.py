"""The one recipe from photos to what a training run learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import interpolate

from mnemon.data import Concept, masks_tensor, photo_squares
from mnemon.data.tensors import Fit
from mnemon.errors import MnemonError
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.training.examples import Examples, joined
from mnemon.training.generated import calibration_images, class_images, replay_images
from mnemon.training.prompts import class_prompt, prompt_sources, training_prompts

CROPS = 4  # of each photo, where random crops are asked for


@dataclass(frozen=True)
class PhotoSettings:
    """How photos become squares: `fit` "crop" or "pad"; `flip` adds each one mirrored; `random_crop` takes four squares
    of each, at random places, instead of the middle one (with `flip`, every second one mirrored)."""

    fit: Fit = "crop"
    flip: bool = False
    random_crop: bool = False


@dataclass(frozen=True)
class ConceptTask:
    """One concept to be learned.

    Attributes:
        examples: its images.
        prior: images that the model should go on generating (of the class, DreamBooth, arXiv 2208.12242, or of earlier
            concepts, generative replay); a step has as many of them as of the concept.
        calibration: images of diverse things for methods that need them, the same for all tasks of a run.
        sources: where a prompt was read, for errors.
    """

    name: str
    class_noun: str | None
    examples: Examples
    prior: Examples | None = None
    calibration: Examples | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def make_tasks(
    base: Base,
    method: Method,
    concepts: Sequence[Concept],
    earlier: Sequence[TrainedConcept] = (),
    *,
    seed: int = 0,
    photos: PhotoSettings | None = None,
    num_class_images: int = 0,
    calibration: Examples | None = None,
    masked: bool = False,
) -> list[ConceptTask]:
    """Encode the photos of `concepts` and generate whatever else the method trains on: what `train` takes.

    Args:
        earlier: concepts the model has already, for methods with generative replay.
        seed: of crops and generated images.
        num_class_images: class images from the bare base for each concept (prior preservation).
        calibration: calibration images; without them they are generated, if the method needs any.
        masked: give the examples the photos' masks, for `TrainingSettings.masked_loss`.

    Raises:
        MnemonError: class images are asked for, and a concept has no class noun; or masks, and there are none, or one
            does not fit its photo.
    """
    if masked:
        check_masks(concepts)
    replay = replay_images(base, method, earlier, seed)
    calibration = calibration or calibration_images(base, method)
    return [
        ConceptTask(
            concept.name,
            concept.class_noun,
            examples_of(base, method, concept, photos, seed, masked),
            joined([_class_images(base, concept, num_class_images, seed), replay]),
            calibration,
            prompt_sources(concept, method),
        )
        for concept in concepts
    ]


def check_masks(concepts: Sequence[Concept]) -> None:
    """Raises:
    MnemonError: none of the concepts, which are trained together, has a mask.
    """
    if not any(photo.mask for concept in concepts for photo in concept.photos):
        names = ", ".join(f"'{concept.name}'" for concept in concepts)
        raise MnemonError(
            f"A masked loss needs masks, and {names} has none: put 'a-masklabel.png', white where the thing is, beside "
            "'a.jpg'."
        )


def examples_of(
    base: Base,
    method: Method,
    concept: Concept,
    photos: PhotoSettings | None = None,
    seed: int = 0,
    masked: bool = False,
) -> Examples:
    """The concept's photos as latents, encoded once, with a prompt for each; `seed` places random crops."""
    photos, generator = photos or PhotoSettings(), torch.Generator().manual_seed(seed)
    draws = CROPS if photos.random_crop else 2 if photos.flip else 1
    crop: dict[str, Any] = {"fit": photos.fit, "random_crop": photos.random_crop, "generator": generator}
    latents, masks = [], []
    for draw in range(draws):
        mirrored = photos.flip and draw % 2 == 1  # not by chance: of few photos, chance may well mirror all or none
        state = generator.get_state()
        for square in photo_squares(concept, base.resolution, **crop):
            latents.append(base.encode_images((square.flip(-1) if mirrored else square)[None]))
        if masked:
            generator.set_state(state)  # cut as the photos were
            whole = masks_tensor(concept, base.resolution, **crop)
            masks.append(whole.flip(-1) if mirrored else whole)
    rows, prompts = training_prompts(concept, method)
    count = len(concept.photos)
    picked = [row + count * draw for draw in range(draws) for row in rows]
    encoded = torch.cat(latents)
    weights = interpolate(torch.cat(masks), encoded.shape[2:], mode="area")[picked] if masked else None
    return Examples(encoded[picked], prompts * draws, weights)


def _class_images(base: Base, concept: Concept, count: int, seed: int) -> Examples | None:
    return class_images(base, class_prompt(concept), count, seed) if count else None
