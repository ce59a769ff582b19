"""One row of the score matrix: sample every concept again and compare. Everything that scores images calls this."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.evaluation.alignment import (
    clip_score,
    matched_cosines,
    mean_pairwise_cosine,
    multi_concept_alignment,
    self_similarity,
)
from mnemon.evaluation.attributes import attribute_accuracy
from mnemon.evaluation.encoders import Encoders, WorldEncoders, reference_features
from mnemon.evaluation.prompts import EvalPrompts, concept_prompts, control_prompts, prompt_set
from mnemon.evaluation.settings import EvalSettings
from mnemon.library import Library
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.sampling.composing import compose_library
from mnemon.sampling.precision import bf16_autocast

OnImages = Callable[[str | None, Tensor], None]
"""Called with each concept's name (None for the control prompts) and its images (n, 3, height, width) in 0..1."""
References = Mapping[str, Mapping[str, Tensor]]
"""Concept -> {"image", "identity"}, features of its reference images (`reference_features`)."""
Features = dict[str, Tensor]


@dataclass
class EvalRow:
    """What was measured of one revision.

    Attributes:
        concepts: name -> {"image_alignment", "identity_alignment", "text_alignment", "clip_score", "image_ceiling",
            "identity_ceiling", "references"}: alignments are cosines, `clip_score` is text alignment in the 2.5
            convention, a ceiling is the references' self-similarity, None for fewer than two. With the world's encoders
            also "attributes": attribute -> share of images that show what the prompt names.
        control: {"text_alignment", "clip_score"} and perhaps "attributes" of the control prompts; None if not sampled.
        combined: for each set of concepts sampled together, their names as "concepts", and scores; None if not asked.
        refused: number of concepts -> why a prompt with so many could not be sampled.
        encoders, settings: with what was measured, as JSON.
        features: of the images sampled, by concept; None stands for the control prompts, which have "image" alone.
        seconds, num_images: what sampling took, and of how many images.
    """

    encoders: str
    settings: dict[str, Any]
    concepts: dict[str, dict[str, Any]] = field(default_factory=dict)
    control: dict[str, Any] | None = None
    combined: list[dict[str, Any]] | None = None
    refused: dict[str, str] = field(default_factory=dict)
    features: dict[str | None, Features] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    num_images: int = 0

    def scores(self) -> dict[str, Any]:
        """What was measured, JSON-able: {"concepts", "general", "multi", "refused"}, without what is not there."""
        optional = {"general": self.control, "multi": self.combined, "refused": self.refused or None}
        return {"concepts": self.concepts, **{key: value for key, value in optional.items() if value is not None}}

    def to_json(self) -> dict[str, Any]:
        """A library's row: the scores, and with what they were measured."""
        return {**self.scores(), "encoders": self.encoders, "settings": self.settings}


def evaluate(
    composed: Composed,
    references: References,
    encoders: Encoders,
    settings: EvalSettings | None = None,
    on_images: OnImages | None = None,
    *,
    prompts: Mapping[str, EvalPrompts] | None = None,
    control: bool = True,
    combined: Mapping[tuple[str, ...], EvalPrompts] | None = None,
) -> EvalRow:
    """Score concepts that are composed into the base, and the base's control prompts; images share batches.

    Args:
        composed: entered already; `Composed(base, method, [])` is the bare base.
        references: a concept without is sampled, but its alignments are None.
        on_images: called with the images of each concept as they are sampled, and of each of `combined` by its names
            with "+" between.
        prompts: of the concepts to score; all the others stay in the model. None: all, `default_prompts`.
        control: whether to sample the control prompts.
        combined: prompts that name several concepts together, by the names. What a method cannot sample, or the base
            cannot read, is noted with its reason.

    Raises:
        MnemonError: references were made with other encoders, or the encoders' prompt set is not known.
    """
    settings = settings or EvalSettings.of_base(composed.base)
    row = EvalRow(encoders.name, settings.to_row_json(encoders.prompts))
    evaluator = _Evaluator(composed, references, encoders, settings, on_images or (lambda name, images: None), row)
    evaluator.score_concepts(default_prompts(composed, encoders, settings) if prompts is None else prompts, control)
    if combined is not None:
        evaluator.score_combined(combined)
    return row


def evaluate_library(
    library: Library,
    base: Base,
    encoders: Encoders,
    settings: EvalSettings | None = None,
    on_images: OnImages | None = None,
) -> dict[str, Any]:
    """The row of the score matrix at the library's revision, as JSON."""
    with compose_library(library, base) as composed:
        return evaluate(composed, library.all_references(), encoders, settings, on_images).to_json()


def default_prompts(composed: Composed, encoders: Encoders, settings: EvalSettings) -> dict[str, EvalPrompts]:
    """Of every concept composed, by the settings' templates or the encoders' prompt set."""
    chosen, name_of = prompt_set(encoders.prompts), composed.method.prompt_name
    templates, count = settings.templates, settings.num_images
    return {
        one.name: concept_prompts(name_of(one.name, one.class_noun), one.class_noun, chosen, count, templates=templates)
        for one in composed.learned
    }


@dataclass
class _Evaluator:
    """Fills one row."""

    composed: Composed
    references: References
    encoders: Encoders
    settings: EvalSettings
    on_images: OnImages
    row: EvalRow

    def score_concepts(self, prompts: Mapping[str, EvalPrompts], control: bool) -> None:
        requests: dict[str | None, EvalPrompts] = dict(prompts.items())
        if control:
            requests[None] = control_prompts(prompt_set(self.encoders.prompts))
        for name, images in self._sampled(requests):
            if name is None:
                features = {"image": self.encoders.image(images)}
                self.row.control = self._prompt_scores(images, features["image"], requests[name].words)
            else:
                features = reference_features(self.encoders, images)
                self.row.concepts[name] = self._concept_scores(name, images, features, requests[name].words)
            self.row.features[name] = features

    def score_combined(self, combined: Mapping[tuple[str, ...], EvalPrompts]) -> None:
        """Sets of one size share batches; a size that cannot be sampled is refused as a whole."""
        self.row.combined = []
        for size in sorted({len(names) for names in combined}):
            sets = {"+".join(names): names for names in combined if len(names) == size}
            try:
                sampled = list(self._sampled({key: combined[names] for key, names in sets.items()}))
            except MnemonError as error:
                self.row.refused[str(size)] = str(error)
                continue
            for key, images in sampled:
                names = sets[str(key)]
                scores = self._combined_scores(names, images, combined[names].words)
                self.row.combined.append({"concepts": list(names), **scores})

    def _sampled(self, requests: Mapping[Any, EvalPrompts]) -> Iterator[tuple[Any, Tensor]]:
        """Each request's images, (n, 3, height, width). Requests share batches, so that these are full."""
        prompts = [prompt for request in requests.values() for prompt in request.prompts]
        seeds = [seed for request in requests.values() for seed in self.settings.seeds(len(request.prompts))]
        waiting, ahead = [(key, len(request.prompts)) for key, request in requests.items()], torch.empty(0)
        for start in range(0, len(prompts), self.settings.batch_size):
            part = slice(start, start + self.settings.batch_size)
            images = self._sample(prompts[part], seeds[part])
            ahead = torch.cat([ahead, images]) if len(ahead) else images
            while waiting and len(ahead) >= waiting[0][1]:
                key, count = waiting.pop(0)
                self.on_images(key, ahead[:count])
                yield key, ahead[:count]
                ahead = ahead[count:]

    def _sample(self, prompts: list[str], seeds: list[int]) -> Tensor:
        began = time.perf_counter()
        with bf16_autocast(self.composed.base):
            images = self.composed.sample(prompts, seeds, self.settings.sampling)
        self.row.seconds += time.perf_counter() - began
        self.row.num_images += len(images)
        return images

    def _concept_scores(self, name: str, images: Tensor, features: Features, words: list[str]) -> dict[str, Any]:
        references = self.references.get(name, {})
        scores: dict[str, Any] = {}
        for kind, of_images in features.items():
            known = references.get(kind)
            _check_width(name, kind, of_images, known)
            scores[f"{kind}_alignment"] = None if known is None else mean_pairwise_cosine(of_images, known)
            scores[f"{kind}_ceiling"] = None if known is None else _none_for_nan(self_similarity(known))
        scores["references"] = max((len(known) for known in references.values()), default=0)
        return scores | self._prompt_scores(images, features["image"], words)

    def _combined_scores(self, names: Sequence[str], images: Tensor, words: list[str]) -> dict[str, Any]:
        features = reference_features(self.encoders, images)
        alignments = {
            f"{kind}_alignment": multi_concept_alignment(of_images, [self.references[name][kind] for name in names])
            for kind, of_images in features.items()
        }
        return {**self._prompt_scores(images, features["image"], words), **alignments}

    def _prompt_scores(self, images: Tensor, features: Tensor, words: list[str]) -> dict[str, Any]:
        """How well images, with their image features, fit their prompts in words."""
        cosines = matched_cosines(features, self.encoders.text(words))
        scores: dict[str, Any] = {"text_alignment": float(cosines.mean()), "clip_score": clip_score(cosines)}
        if isinstance(self.encoders, WorldEncoders):
            scores["attributes"] = attribute_accuracy(self.encoders.attributes(images), words)
        return scores


def _check_width(name: str, kind: str, features: Tensor, known: Tensor | None) -> None:
    if known is not None and known.shape[1] != features.shape[1]:
        raise MnemonError(
            f"The {kind} references of '{name}' have {known.shape[1]} numbers an image, these encoders give "
            f"{features.shape[1]}: measure with the encoders the concept was learned with."
        )


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
