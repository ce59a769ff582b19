"""Custom Diffusion (Kumari et al., CVPR 2023, arXiv 2212.04488), one concept after another."""

from dataclasses import dataclass
from typing import ClassVar

from mnemon.methods.full_rank import FullRankMethod


@dataclass(frozen=True)
class CustomDiffusion(FullRankMethod):
    """Full fine-tuning of the cross-attention keys and values, one concept after another, with a token:

        W_t = W_{t-1} + Delta_t      Delta_t in R^{D1 x D2}, every entry trained, starts at zero
        L   = L_diffusion + w L_prior

    W_{t-1} holds all earlier concepts; training Delta_t is training the weight itself, from W_{t-1} on. The keys and
    values of the BOS token give no gradient to Delta_t, where the base's prompts begin with one. V*_t starts as the
    embedding of a rare word that no earlier concept has taken, or at random when there is none left, and the class noun
    follows it: "V* dog". L_prior is the loss on images of the class (about 200, w = 1 in the paper); the training loop
    adds it if they are given.
    """

    name: ClassVar[str] = "custom-diffusion"
    source: ClassVar[str] = "arXiv 2212.04488, trained in sequence"
