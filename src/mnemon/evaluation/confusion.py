"""Whether images of one concept look like another: the nearest concept by features, for every sampled image."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def nearest_concepts(images: Tensor, references: Sequence[Tensor]) -> Tensor:
    """(n,) place of the concept whose mean reference has the highest cosine with an image (n, d).

    The mean is that of unit features, made of unit length again; the first of equals wins.
    """
    means = torch.stack([normalize(normalize(known.float(), dim=-1).mean(0), dim=0) for known in references])
    return (normalize(images.float(), dim=-1) @ means.T).argmax(1)


def confusion(images: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """(N, N) shares: row j, column k is the share of the images of concept j that are nearest to concept k.

    Its diagonal is right; chance is 1/N. For identity features. It cannot say that an image is like none of them.
    """
    count = len(references)
    shares = torch.zeros(count, count, dtype=torch.float64)
    for j, of_concept in enumerate(images):
        shares[j] = torch.bincount(nearest_concepts(of_concept, references), minlength=count) / len(of_concept)
    return shares


def recognised(shares: Tensor) -> float:
    """Mean of a confusion's diagonal: the share of images nearest to their own concept; 0..1, higher is better."""
    return float(shares.diagonal().mean())
