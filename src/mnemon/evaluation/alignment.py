"""How well images fit their concept and their prompt, and how far a base has drifted, from features alone.

Features are rows and are compared by cosine, so their length does not matter.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import normalize

CLIP_SCORE_SCALE = 2.5


def mean_pairwise_cosine(images: Tensor, references: Tensor) -> float:
    """Mean cosine over all pairs of a sampled image (n, d) and a reference image (m, d); -1..1, higher is better.

    With CLIP features this is image alignment (CLIP-I, IA) as Custom Diffusion, Mix-of-Show and CIDM compute it; with
    features that re-identify an instance (DINO for photographs) it is identity alignment (DINO-I).
    """
    return float((_unit(images) @ _unit(references).T).mean().clamp(-1, 1))  # rounding may go beyond


def self_similarity(photos: Tensor) -> float:
    """Mean cosine of a concept's photos (m, d) against one another, each with the others only; nan for one photo.

    The upper reference: what sampled images could reach if they were photos of the concept.
    """
    count = len(photos)
    if count < 2:
        return float("nan")
    cosines = _unit(photos) @ _unit(photos).T
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def matched_cosines(images: Tensor, texts: Tensor) -> Tensor:
    """Cosine (n,) of image i (n, d) with its own prompt i (n, d). Its mean is text alignment as a plain cosine."""
    return (_unit(images) * _unit(texts)).sum(-1)


def clip_score(cosines: Tensor) -> float:
    """CLIPScore (Hessel et al., arXiv 2104.08718): mean of 2.5 · max(cos, 0).

    The text alignment (CLIP-T, TA) of Custom Diffusion and CIDM; a cosine of 0.30 appears as 0.75.
    """
    return float(CLIP_SCORE_SCALE * cosines.clamp(min=0).mean())


def multi_concept_alignment(images: Tensor, references: Sequence[Tensor]) -> float:
    """Mean over the concepts of one prompt of `mean_pairwise_cosine` of its images (n, d) with their references.

    The reading of CLIP-I for prompts with several concepts that fits the numbers of CNS; -1..1, higher is better. A
    whole image is compared with each concept, so it stays below what the same concepts reach alone.
    """
    return sum(mean_pairwise_cosine(images, known) for known in references) / len(references)


def zero_shot_drift(bare: Tensor, adapted: Tensor) -> float:
    """(1 - mean_i cosine(bare_i, adapted_i)) / 2 of features (n, d), same prompts and seeds; 0..1, lower is better.

    The drift of PEFT's image generation benchmark: control prompts without a concept, sampled by the bare base and
    by the adapted one. Crude: it counts every change, for the worse or not, and a model that learned nothing has none.
    """
    return (1 - float(matched_cosines(bare, adapted).mean())) / 2


def _unit(features: Tensor) -> Tensor:
    return normalize(features.float(), dim=-1)
