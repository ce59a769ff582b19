"""How far apart two sets of images are as distributions: the maximum mean discrepancy of their features.

Features are rows. Unlike a cosine, the MMD depends on their length: say with a figure which features it is of.
torchmetrics has the same estimator (`torchmetrics.image.kid.poly_mmd`), but divides by the first set's count
throughout, which is wrong for sets of unequal size; references and sampled images seldom are of one size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def mmd_squared(left: Tensor, right: Tensor, degree: int = 2, paired: bool = False) -> float:
    """Unbiased squared maximum mean discrepancy of features (m, d) and (n, d) with a polynomial kernel.

        MMD²_u = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j),   k(x, y) = (<x, y>/d + 1)²

    Gretton et al. 2012, equation 3. Lower is better. In fp64. It may be slightly below zero (never take its root), and
    is noisy for few images. With unit features the kernel is nearly constant and the value small: `kernel_scaled`.

    Args:
        degree: of the kernel; 2 is the quadratic one.
        paired: rows i of both sides belong together (same prompt and seed), so they are not independent, and the last
            mean leaves out i = j as well (equation 4). Two equal sets score 0 so, and below it otherwise.

    Raises:
        ValueError: fewer than two rows on a side, or `paired` sides of unequal size.
    """
    if min(len(left), len(right)) < 2:
        raise ValueError("the unbiased MMD needs at least two images on each side")
    if paired and len(left) != len(right):
        raise ValueError(f"{len(left)} images cannot be paired with {len(right)}")
    x, y = left.double(), right.double()
    within = _mean_off_diagonal(_kernel(x, x, degree)) + _mean_off_diagonal(_kernel(y, y, degree))
    across = _kernel(x, y, degree)
    return float(within - 2 * (_mean_off_diagonal(across) if paired else across.mean()))


def kid(left: Tensor, right: Tensor) -> float:
    """Kernel distance: MMD²_u with the cubic kernel (<x, y>/d + 1)³ (Bińkowski et al., arXiv 1801.01401); lower better.

    With Inception pool features and subsets of thousands this is KID as published; with other features or few images
    it is the same formula and not the same number.
    """
    return mmd_squared(left, right, degree=3)


def kernel_scaled(features: Tensor) -> Tensor:
    """Features (n, d) at length √d, so that <x, y>/d is their cosine and the kernel (cosine + 1)² whatever d is."""
    return normalize(features.double(), dim=-1) * features.shape[1] ** 0.5


def a_mmd(photos: Sequence[Tensor], final: Sequence[Tensor]) -> float:
    """A_mmd = (1/N) Σ_j MMD²_u(photos of j, images of j after the last concept): final fidelity, lower is better.

    Names after C-LoRA (arXiv 2304.06027); which estimator the papers used is not known.
    """
    return _mean([mmd_squared(x, y) for x, y in zip(photos, final, strict=True)])


def f_mmd(just_learned: Sequence[Tensor], final: Sequence[Tensor], paired: bool = False) -> float:
    """F_mmd = (1/(N-1)) Σ_{j<N} MMD²_u(images of j when just learned, images of j at the end): drift.

    Lower is better, but a model that never learned does not drift: read it beside `a_mmd`. nan for one concept.
    Images of the same prompts and seeds both times are `paired`; then a model that did not change scores 0.
    """
    return _mean([mmd_squared(x, y, paired=paired) for x, y in list(zip(just_learned, final, strict=True))[:-1]])


def _kernel(x: Tensor, y: Tensor, degree: int) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** degree


def _mean_off_diagonal(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.diagonal().sum()) / (count * (count - 1))


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())
