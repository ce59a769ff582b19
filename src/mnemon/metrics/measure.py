"""One row of the score matrix: draw every concept again and compare."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.methods.base import Learned
from mnemon.metrics.alignment import ceiling, clip_score, matched_cosines, mean_pairwise_cosine
from mnemon.metrics.attributes import attribute_accuracy
from mnemon.metrics.encoders import Encoders, WorldEncoders, reference_features
from mnemon.metrics.prompts import PROMPTS
from mnemon.sampling import Composed
from mnemon.sampling.precision import quickly

OnPictures = Callable[[str | None, Tensor], None]
"""Hears each concept's name (None for the general prompts) and its pictures (n, 3, height, width) in 0..1."""


@dataclass(frozen=True)
class ScoreSettings:
    """How pictures for scores are drawn. The same settings give the same pictures, so scores compare across states.

    Attributes:
        prompts: the set of prompts, a key of `mnemon.metrics.prompts.PROMPTS`.
        seeds_per_prompt: pictures of each concept prompt; a general prompt has one.
        first_seed: picture k of every concept has seed first_seed + k.
        guidance: scale of classifier-free guidance.
        steps: sampling steps.
        batch: pictures at a time; does not change them.
    """

    prompts: str = "world"
    seeds_per_prompt: int = 2
    first_seed: int = 1000
    guidance: float = 4.0
    steps: int = 20
    batch: int = 16

    def __post_init__(self) -> None:
        if self.prompts not in PROMPTS:
            raise MnemonError(f"There are no evaluation prompts '{self.prompts}': choose from {', '.join(PROMPTS)}.")
        if min(self.seeds_per_prompt, self.steps, self.batch) < 1:
            raise MnemonError("For scores, seeds_per_prompt, steps and batch must each be at least 1.")


def settings_for(encoders: Encoders) -> ScoreSettings:
    """The default settings, with the prompts whose words `encoders` know: 16 pictures a concept."""
    return ScoreSettings(encoders.prompts, seeds_per_prompt=16 // len(PROMPTS[encoders.prompts].templates))


def measure_row(
    composed: Composed,
    references: Mapping[str, Mapping[str, Tensor]],
    encoders: Encoders,
    settings: ScoreSettings,
    on_pictures: OnPictures | None = None,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score every concept that is composed into the base, and the base's general prompts. JSON-able.

    Args:
        composed: entered already.
        only: names of the concepts to score, where a whole row would take too long; all of them stay in the model.
        references: concept -> {"image", "identity"}, features of reference pictures (`reference_features`). A concept
            without is drawn, but its alignments are None.
        on_pictures: hears the pictures as they are drawn.

    Returns:
        {"concepts": {name: {"image_alignment", "identity_alignment", "text_alignment", "clip_score", "image_ceiling",
        "identity_ceiling", "references"}}, "general": {"text_alignment", "clip_score"}, "encoders", "settings"};
        alignments are cosines, `clip_score` is text alignment in the 2.5 convention, a ceiling is None for fewer than
        two references. With the world's encoders also "attributes", for each concept and for the general prompts:
        attribute -> share of pictures that show what the prompt names.

    Raises:
        MnemonError: references were made with other encoders.
    """
    hear = on_pictures or (lambda name, pictures: None)
    concepts: dict[str, dict[str, Any]] = {}
    for one in composed.learned:
        if only is not None and one.name not in only:
            continue
        pictures, words = _draw_concept(composed, one, settings)
        hear(one.name, pictures)
        features, known = reference_features(encoders, pictures), references.get(one.name, {})
        concepts[one.name] = concept_scores(one.name, pictures, features, words, known, encoders)
    return {
        "concepts": concepts,
        "general": _general_scores(composed, encoders, settings, hear),
        "encoders": encoders.name,
        "settings": asdict(settings),
    }


def general_alignment(
    composed: Composed, encoders: Encoders, settings: ScoreSettings, on_pictures: OnPictures | None = None
) -> float:
    """Text alignment (mean cosine) of the general prompts; `Composed(base, method, [])` is the bare base."""
    scores = _general_scores(composed, encoders, settings, on_pictures or (lambda name, pictures: None))
    return float(scores["text_alignment"])


def _general_scores(
    composed: Composed, encoders: Encoders, settings: ScoreSettings, hear: OnPictures
) -> dict[str, Any]:
    prompts = list(PROMPTS[settings.prompts].general)
    pictures = _draw(composed, prompts, settings)
    hear(None, pictures)
    return prompt_scores(pictures, encoders.image(pictures), prompts, encoders)


def _draw_concept(composed: Composed, one: Learned, settings: ScoreSettings) -> tuple[Tensor, list[str]]:
    """Pictures of a concept, and for each its prompt without the concept's token."""
    prompts = PROMPTS[settings.prompts]
    called = prompts.of_concept(composed.method.prompt_name(one.name, one.noun)) * settings.seeds_per_prompt
    return _draw(composed, called, settings), prompts.in_words(one.noun) * settings.seeds_per_prompt


def _draw(composed: Composed, prompts: list[str], settings: ScoreSettings) -> Tensor:
    seeds = range(settings.first_seed, settings.first_seed + len(prompts))
    with quickly(composed.base):
        return composed.draw(
            prompts, seeds=seeds, guidance=settings.guidance, steps=settings.steps, batch=settings.batch
        )


def concept_scores(
    name: str,
    pictures: Tensor,
    features: Mapping[str, Tensor],
    words: list[str],
    references: Mapping[str, Tensor],
    encoders: Encoders,
) -> dict[str, Any]:
    """The scores of one concept's pictures (n, 3, height, width), as in a row of `measure_row`.

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
    return scores | prompt_scores(pictures, features["image"], words, encoders)


def prompt_scores(pictures: Tensor, image: Tensor, prompts: list[str], encoders: Encoders) -> dict[str, Any]:
    """How well pictures, with their image features, fit their prompts in words."""
    cosines = matched_cosines(image, encoders.text(prompts))
    scores: dict[str, Any] = {"text_alignment": float(cosines.mean()), "clip_score": clip_score(cosines)}
    if isinstance(encoders, WorldEncoders):
        scores["attributes"] = attribute_accuracy(encoders.attributes(pictures), prompts)
    return scores


def _check_width(name: str, kind: str, features: Tensor, known: Tensor | None) -> None:
    if known is not None and known.shape[1] != features.shape[1]:
        raise MnemonError(
            f"The {kind} references of '{name}' have {known.shape[1]} numbers a picture, these encoders give "
            f"{features.shape[1]}: measure with the encoders the concept was learned with."
        )


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
