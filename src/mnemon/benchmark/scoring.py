"""A row of the score matrix, drawn in full batches: concepts, general prompts and concepts together."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from mnemon.benchmark.sequences import ConceptSpec
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, reference_features
from mnemon.evaluation.alignment import multi_concept_alignment
from mnemon.evaluation.combined_prompts import SIZES, Prompted, combinations, combined_prompts, concept_prompts
from mnemon.evaluation.evaluate import concept_scores, prompt_scores
from mnemon.evaluation.prompts import PROMPTS
from mnemon.sampling import Composed
from mnemon.sampling.precision import bf16_autocast

SHOWN = 4  # images in a strip; also images of each combination
GENERAL = "general"  # stands for the general prompts where a concept's name could stand

References = Mapping[str, Mapping[str, Tensor]]
"""Concept -> {"image", "identity"}, features of images of it (`reference_features`)."""


@dataclass(frozen=True)
class Scoring:
    """How images for scores are drawn; the same for every job, so that scores compare.

    Attributes:
        images: of a concept in a cell. Image k has prompt k of the concept, in turn, and seed first_seed + k.
        points: numbers of concepts after which all of them are drawn again; after the last one they always are.
        num_inference_steps, guidance_scale: of the sampler.
        batch_size: images at a time; does not change them.
    """

    images: int = 16
    points: tuple[int, ...] = (1, 10, 25, 50)
    num_inference_steps: int = 20
    guidance_scale: float = 4.0
    batch_size: int = 32
    first_seed: int = 1000

    def __post_init__(self) -> None:
        if min(self.images, self.num_inference_steps, self.batch_size, *self.points) < 1:
            raise MnemonError("For scores, images, steps, batch and every point must each be at least 1.")

    def whole_rows(self, count: int) -> list[int]:
        """The states at which whole rows are scored, of `count` concepts."""
        return sorted({point for point in self.points if point < count} | {count})

    def seeds(self, count: int) -> list[int]:
        return list(range(self.first_seed, self.first_seed + count))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "points": list(self.points)}


@dataclass
class Scored:
    """What was measured at one state: the row for rows.json, features by their keys, the first images by name, and
    what drawing took."""

    row: dict[str, Any]
    features: dict[str, Tensor] = field(default_factory=dict)
    shown: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0


@dataclass(frozen=True)
class _Request:
    key: str
    prompted: Prompted
    seeds: list[int]


def score_state(
    composed: Composed,
    known: Sequence[ConceptSpec],
    drawn: Sequence[ConceptSpec],
    references: References,
    encoders: Encoders,
    scoring: Scoring,
    whole: bool,
) -> Scored:
    """Score the concepts `drawn` of those `known` to the model; at a `whole` row also the general prompts, and prompts
    that name 2, 3 and 4 concepts, as far as the method draws such."""
    state, names = len(known), {one.name: one for one in drawn}
    method, family, scored = composed.method, encoders.prompts, Scored({"concepts": {}})
    asked = [
        _Request(one.name, concept_prompts(method, one, family, scoring.images), scoring.seeds(scoring.images))
        for one in drawn
    ]
    if whole:
        asked.append(_general(family, scoring))
    for request, images in _drawn(composed, asked, scoring, scored):
        features, words = reference_features(encoders, images), request.prompted.words
        if request.key == GENERAL:
            scored.row["general"] = prompt_scores(images, features["image"], words, encoders)
            scored.features[f"general/{state}/image"] = features["image"]
            continue
        name = names[request.key].name
        scored.row["concepts"][name] = concept_scores(name, images, features, words, references[name], encoders)
        scored.features |= {f"pictures/{state}/{name}/{kind}": value for kind, value in features.items()}
        scored.shown[name] = images[:SHOWN]
    if whole:
        _score_together(composed, known, references, encoders, scoring, scored)
    return scored


def score_bare(composed: Composed, encoders: Encoders, scoring: Scoring) -> tuple[dict[str, Any], Tensor]:
    """Scores and image features of the general prompts, drawn by what is composed: nothing, for the bare base."""
    ((request, images),) = _drawn(composed, [_general(encoders.prompts, scoring)], scoring, Scored({}))
    image = encoders.image(images)
    return prompt_scores(images, image, request.prompted.words, encoders), image


def _general(family: str, scoring: Scoring) -> _Request:
    prompts = list(PROMPTS[family].general)
    return _Request(GENERAL, Prompted(prompts, prompts), scoring.seeds(len(prompts)))


def _score_together(
    composed: Composed,
    known: Sequence[ConceptSpec],
    references: References,
    encoders: Encoders,
    scoring: Scoring,
    scored: Scored,
) -> None:
    """Combinations of each size; what a method cannot draw, or the base cannot read, is noted with its reason."""
    scored.row["multi"], count = [], min(SHOWN, scoring.images)
    for size in SIZES:
        sets = {"+".join(one.name for one in members): members for members in combinations(known, size)}
        asked = [
            _Request(key, combined_prompts(composed.method, members, encoders.prompts, count), scoring.seeds(count))
            for key, members in sets.items()
        ]
        try:
            drawn = list(_drawn(composed, asked, scoring, scored))
        except MnemonError as error:
            scored.row.setdefault("refused", {})[str(size)] = str(error)
            continue
        for request, images in drawn:
            names = [one.name for one in sets[request.key]]
            scored.row["multi"].append(_scores_together(names, request.prompted.words, images, references, encoders))
            scored.shown[request.key] = images[:SHOWN]


def _scores_together(
    names: list[str], words: list[str], images: Tensor, references: References, encoders: Encoders
) -> dict[str, Any]:
    features = reference_features(encoders, images)
    alignments = {
        f"{kind}_alignment": multi_concept_alignment(found, [references[name][kind] for name in names])
        for kind, found in features.items()
    }
    return {"concepts": names, **prompt_scores(images, features["image"], words, encoders), **alignments}


def _drawn(
    composed: Composed, asked: Sequence[_Request], scoring: Scoring, scored: Scored
) -> Iterator[tuple[_Request, Tensor]]:
    """Each request's images, (n, 3, height, width). Requests share batches, so that these are full."""
    prompts = [prompt for request in asked for prompt in request.prompted.prompts]
    seeds = [seed for request in asked for seed in request.seeds]
    waiting, ahead = list(asked), torch.empty(0)
    for start in range(0, len(prompts), scoring.batch_size):
        part = slice(start, start + scoring.batch_size)
        began = time.perf_counter()
        with bf16_autocast(composed.base):
            images = composed.sample(
                prompts[part],
                seeds=seeds[part],
                guidance_scale=scoring.guidance_scale,
                num_inference_steps=scoring.num_inference_steps,
                batch_size=scoring.batch_size,
            )
        scored.seconds += time.perf_counter() - began
        scored.images += len(images)
        ahead = torch.cat([ahead, images]) if len(ahead) else images
        while waiting and len(ahead) >= len(waiting[0].seeds):
            request = waiting.pop(0)
            yield request, ahead[: len(request.seeds)]
            ahead = ahead[len(request.seeds) :]
