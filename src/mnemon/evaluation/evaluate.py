"""One row of the score matrix: draw every concept again and compare."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.evaluation.alignment import ceiling, clip_score, matched_cosines, mean_pairwise_cosine
from mnemon.evaluation.attributes import attribute_accuracy
from mnemon.evaluation.encoders import Encoders, WorldEncoders, reference_features
from mnemon.evaluation.prompts import PROMPTS
from mnemon.methods.base import TrainedConcept
from mnemon.sampling import Composed
from mnemon.sampling.precision import bf16_autocast

OnImages = Callable[[str | None, Tensor], None]
"""Hears each concept's name (None for the general prompts) and its images (n, 3, height, width) in 0..1."""


@dataclass(frozen=True)
class ScoreSettings:
    """How images for scores are drawn. The same settings give the same images, so scores compare across states.

    Attributes:
        prompts: the set of prompts, a key of `mnemon.evaluation.prompts.PROMPTS`.
        seeds_per_prompt: images of each concept prompt; a general prompt has one.
        first_seed: image k of every concept has seed first_seed + k.
        guidance_scale: scale of classifier-free guidance.
        num_inference_steps: sampling steps.
        batch_size: images at a time; does not change them.
    """

    prompts: str = "world"
    seeds_per_prompt: int = 2
    first_seed: int = 1000
    guidance_scale: float = 4.0
    num_inference_steps: int = 20
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.prompts not in PROMPTS:
            raise MnemonError(f"There are no evaluation prompts '{self.prompts}': choose from {', '.join(PROMPTS)}.")
        if min(self.seeds_per_prompt, self.num_inference_steps, self.batch_size) < 1:
            raise MnemonError("For scores, seeds_per_prompt, steps and batch must each be at least 1.")


def settings_for(encoders: Encoders) -> ScoreSettings:
    """The default settings, with the prompts whose words `encoders` know: 16 images a concept."""
    return ScoreSettings(encoders.prompts, seeds_per_prompt=16 // len(PROMPTS[encoders.prompts].templates))


def evaluate_row(
    composed: Composed,
    references: Mapping[str, Mapping[str, Tensor]],
    encoders: Encoders,
    settings: ScoreSettings,
    on_images: OnImages | None = None,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score every concept that is composed into the base, and the base's general prompts. JSON-able.

    Args:
        composed: entered already.
        only: names of the concepts to score, where a whole row would take too long; all of them stay in the model.
        references: concept -> {"image", "identity"}, features of reference images (`reference_features`). A concept
            without is drawn, but its alignments are None.
        on_images: hears the images as they are drawn.

    Returns:
        {"concepts": {name: {"image_alignment", "identity_alignment", "text_alignment", "clip_score", "image_ceiling",
        "identity_ceiling", "references"}}, "general": {"text_alignment", "clip_score"}, "encoders", "settings"};
        alignments are cosines, `clip_score` is text alignment in the 2.5 convention, a ceiling is None for fewer than
        two references. With the world's encoders also "attributes", for each concept and for the general prompts:
        attribute -> share of images that show what the prompt names.

    Raises:
        MnemonError: references were made with other encoders.
    """
    hear = on_images or (lambda name, images: None)
    concepts: dict[str, dict[str, Any]] = {}
    for one in composed.learned:
        if only is not None and one.name not in only:
            continue
        images, words = _draw_concept(composed, one, settings)
        hear(one.name, images)
        features, known = reference_features(encoders, images), references.get(one.name, {})
        concepts[one.name] = concept_scores(one.name, images, features, words, known, encoders)
    return {
        "concepts": concepts,
        "general": _general_scores(composed, encoders, settings, hear),
        "encoders": encoders.name,
        "settings": asdict(settings),
    }


def general_alignment(
    composed: Composed, encoders: Encoders, settings: ScoreSettings, on_images: OnImages | None = None
) -> float:
    """Text alignment (mean cosine) of the general prompts; `Composed(base, method, [])` is the bare base."""
    scores = _general_scores(composed, encoders, settings, on_images or (lambda name, images: None))
    return float(scores["text_alignment"])


def _general_scores(composed: Composed, encoders: Encoders, settings: ScoreSettings, hear: OnImages) -> dict[str, Any]:
    prompts = list(PROMPTS[settings.prompts].general)
    images = _draw(composed, prompts, settings)
    hear(None, images)
    return prompt_scores(images, encoders.image(images), prompts, encoders)


def _draw_concept(composed: Composed, one: TrainedConcept, settings: ScoreSettings) -> tuple[Tensor, list[str]]:
    """Images of a concept, and for each its prompt without the concept's token."""
    prompts = PROMPTS[settings.prompts]
    called = prompts.of_concept(composed.method.prompt_name(one.name, one.class_noun)) * settings.seeds_per_prompt
    return _draw(composed, called, settings), prompts.in_words(one.class_noun) * settings.seeds_per_prompt


def _draw(composed: Composed, prompts: list[str], settings: ScoreSettings) -> Tensor:
    seeds = range(settings.first_seed, settings.first_seed + len(prompts))
    with bf16_autocast(composed.base):
        return composed.sample(
            prompts,
            seeds=seeds,
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            batch_size=settings.batch_size,
        )


def concept_scores(
    name: str,
    images: Tensor,
    features: Mapping[str, Tensor],
    words: list[str],
    references: Mapping[str, Tensor],
    encoders: Encoders,
) -> dict[str, Any]:
    """The scores of one concept's images (n, 3, height, width), as in a row of `evaluate_row`.

    Args:
        features: theirs, as `reference_features` gives them.
        words: their prompts, without the concept's token.
    """
    scores: dict[str, Any] = {}
    for kind, found in features.items():
        known = references.get(kind)
        _check_width(name, kind, found, known)
        scores[f"{kind}_alignment"] = None if known is None else mean_pairwise_cosine(found, known)
        scores[f"{kind}_ceiling"] = None if known is None else _none_for_nan(ceiling(known))
    scores["references"] = max((len(known) for known in references.values()), default=0)
    return scores | prompt_scores(images, features["image"], words, encoders)


def prompt_scores(images: Tensor, image: Tensor, prompts: list[str], encoders: Encoders) -> dict[str, Any]:
    """How well images, with their image features, fit their prompts in words."""
    cosines = matched_cosines(image, encoders.text(prompts))
    scores: dict[str, Any] = {"text_alignment": float(cosines.mean()), "clip_score": clip_score(cosines)}
    if isinstance(encoders, WorldEncoders):
        scores["attributes"] = attribute_accuracy(encoders.attributes(images), prompts)
    return scores


def _check_width(name: str, kind: str, features: Tensor, known: Tensor | None) -> None:
    if known is not None and known.shape[1] != features.shape[1]:
        raise MnemonError(
            f"The {kind} references of '{name}' have {known.shape[1]} numbers an image, these encoders give "
            f"{features.shape[1]}: measure with the encoders the concept was learned with."
        )


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
