"""How well pictures fit their concept and their prompt, from features alone.

Features are rows; all but those of the MMD are compared by cosine, so their length does not matter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

CLIP_SCORE_SCALE = 2.5


def mean_pairwise_cosine(pictures: Tensor, references: Tensor) -> float:
    """Mean cosine over all pairs of a drawn picture (n, d) and a reference picture (m, d); -1..1, higher is better.

    With CLIP features this is image alignment (CLIP-I, IA) as Custom Diffusion, Mix-of-Show and CIDM compute it; with
    features that know an instance again (DINO for photographs) it is identity alignment (DINO-I).
    """
    return float((_unit(pictures) @ _unit(references).T).mean())


def ceiling(photos: Tensor) -> float:
    """Mean cosine of a concept's photos (m, d) against one another, each with the others only; nan for one photo.

    What drawn pictures could reach if they were photos of the concept.
    """
    count = len(photos)
    if count < 2:
        return float("nan")
    cosines = _unit(photos) @ _unit(photos).T
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def matched_cosines(pictures: Tensor, texts: Tensor) -> Tensor:
    """Cosine (n,) of picture i (n, d) with its own prompt i (n, d). Its mean is text alignment as a plain cosine."""
    return (_unit(pictures) * _unit(texts)).sum(-1)


def clip_score(cosines: Tensor) -> float:
    """CLIPScore (Hessel et al., arXiv 2104.08718): mean of 2.5 · max(cos, 0).

    The text alignment (CLIP-T, TA) of Custom Diffusion and CIDM; a cosine of 0.30 appears as 0.75.
    """
    return float(CLIP_SCORE_SCALE * cosines.clamp(min=0).mean())


def mmd_squared(left: Tensor, right: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of features (m, d) and (n, d) with the quadratic kernel.

        MMD²_u = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j),   k(x, y) = (<x, y>/d + 1)²

    Lower is better. In fp64. It may be slightly below zero, and is noisy for few pictures. With unit features the
    kernel is nearly constant and the value small: say with it how the features were scaled.

    Raises:
        ValueError: fewer than two rows on a side.
    """
    if min(len(left), len(right)) < 2:
        raise ValueError("the unbiased MMD needs at least two pictures on each side")
    x, y = left.double(), right.double()
    within = _mean_off_diagonal(_quadratic(x, x)) + _mean_off_diagonal(_quadratic(y, y))
    return float(within - 2 * _quadratic(x, y).mean())


def a_mmd(photos: Sequence[Tensor], final: Sequence[Tensor]) -> float:
    """A_mmd = (1/N) Σ_j MMD²_u(photos of j, pictures of j after the last concept): final fidelity, lower is better.

    Names after C-LoRA (arXiv 2304.06027); which estimator the papers used is not known.
    """
    return _mean([mmd_squared(x, y) for x, y in zip(photos, final, strict=True)])


def f_mmd(just_learned: Sequence[Tensor], final: Sequence[Tensor]) -> float:
    """F_mmd = (1/(N-1)) Σ_{j<N} MMD²_u(pictures of j when just learned, pictures of j at the end): drift.

    Lower is better, but a model that never learned does not drift: read it beside `a_mmd`.
    """
    return _mean([mmd_squared(x, y) for x, y in list(zip(just_learned, final, strict=True))[:-1]])


def _unit(features: Tensor) -> Tensor:
    return normalize(features.float(), dim=-1)


def _quadratic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 2


def _mean_off_diagonal(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.diagonal().sum()) / (count * (count - 1))


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())
