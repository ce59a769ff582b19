"""The closed-form merge of Custom Diffusion (Kumari et al., CVPR 2023, arXiv 2212.04488): concepts are trained
independently, and one model is solved for that gives each concept's words the keys and values of its own model.

Written from the equations; no code of the authors is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from mnemon.adapters import Delta, Dense
from mnemon.data.captions import captions_of_two, diverse_captions
from mnemon.methods.base import Start, TrainedConcept
from mnemon.methods.full_rank import FullRankLearner, FullRankMethod
from mnemon.models.base import Base
from mnemon.settings import PositiveFloat, PositiveInt

OPENING = "a photo of"


@dataclass(frozen=True)
class CustomDiffusionMerge(FullRankMethod):
    """Custom Diffusion with every concept trained on the bare base, as W_i = W_0 + Delta_i, and of each key or value
    layer the one weight that maps the concepts' words as their own models do, and otherwise differs least from W_0:

        min_W || (W - W_0) C_reg^T ||_F     subject to     W c = W_i c   for every word c of concept i

    C_reg holds the features (words, width) of diverse captions, C (n, width) those of all concepts' words: of "V* dog",
    and of "a photo of V* dog" from V* on, each to its EOS. With G = C_reg^T C_reg and d = C G^-1 the solution is

        W = W_0 + R (d C^T)^-1 d            R (D1, n): the columns Delta_i c,   V^T - W_0 C^T in the paper

    Here with G = L L^T: the least X with X (L^-1 C^T) = R, and W = W_0 + X L^-1, which inverts nothing. Where words are
    dependent, as with more of them than the text is wide, X is the least-squares solution; a word that stands in C
    twice counts once. The token of every concept starts at the same rare word.
    """

    name: ClassVar[str] = "custom-diffusion-merge"
    fuses: ClassVar[bool] = True
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2212.04488, trained apart and merged in closed form"
    static_text_features = True

    captions: PositiveInt = 200
    """Captions of one thing in C_reg, and as many of two."""
    ridge: PositiveFloat = 1e-3
    """What is added to the diagonal of G, as a share of its mean."""

    def begin(self, start: Start) -> FullRankLearner:
        return FullRankLearner(self, replace(start, earlier=()))

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        if not learned:
            return {}
        # Without captions of two things nothing holds the word between them, and it goes wherever the solution likes.
        known, count = base.single_token_words, self.captions
        captions = diverse_captions(known, count, seed=0) + captions_of_two(known, count, seed=0)
        texts = torch.cat(base.token_features(captions)).double().cpu()
        words = [concept_words(base, self.prompt_name(one.name, one.class_noun)) for one in learned]
        heights = [layer.out_features for layer in base.target_modules().values()]
        # All layers read the same features, so they are solved together: a concept's changes one above the other.
        changes = (torch.cat([one.deltas[target].matrix() for target in base.target_modules()]) for one in learned)
        wanted = [change.double().cpu() @ own.T for change, own in zip(changes, words, strict=True)]
        merged = merge(torch.cat(words), torch.cat(wanted, dim=1), texts, self.ridge)
        return dict(zip(base.target_modules(), map(Dense, merged.float().split(heights)), strict=True))


@torch.no_grad()
def concept_words(base: Base, called: str) -> Tensor:
    """What the words of the concept become, (words, width) in fp64: those of "V* dog", and of "a photo of V* dog" from
    V* on, with the end marks."""
    opening = len(base.token_features([OPENING])[0]) - 1  # without its end mark
    alone, shown = base.token_features([called, f"{OPENING} {called}"])
    return torch.cat([alone, shown[opening:]]).double().cpu()


def merge(words: Tensor, wanted: Tensor, texts: Tensor, ridge: float) -> Tensor:
    """The least change Delta (rows, width) that has Delta words^T = wanted, measured as || Delta texts^T ||.

    Args:
        words: C (n, width).
        wanted: R (rows, n).
        texts: C_reg (m, width).
        ridge: a share of the mean of G's diagonal, added to it.
    """
    gram = texts.T @ texts
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    root = torch.linalg.cholesky(gram)
    whitened = torch.linalg.solve_triangular(root, words.T, upper=False)  # L^-1 C^T (width, n)
    # The text features come in fp32: directions beyond 1e-6 of the largest are rounding, and left out.
    least = torch.linalg.lstsq(whitened.T, wanted.T, rcond=1e-6, driver="gelsd").solution  # X^T (width, rows)
    return torch.linalg.solve_triangular(root.T, least, upper=True).T
