"""Importance of single weights to prompts or images: scores, 0/1 masks from them, overlap of masks.

Wanda's score (Sun et al., arXiv 2306.11695) depends on prompts, SNIP's (Lee et al., arXiv 1810.02340) on images.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mnemon.adapters import Dense, Sparse, attach
from mnemon.data.captions import diverse_captions
from mnemon.errors import MnemonError
from mnemon.methods.base import Losses, TrainedConcept
from mnemon.models.base import Base

Masks = Mapping[str, Tensor]
"""A boolean (d_out, d_in) for each target module."""
Scope = Literal["layer", "row"]
STIMULI = ("a photo of {}", "a picture of {}", "{}")
"""Prompts that a concept is scored on; each ends with its name."""
CAPTIONS = 128
"""Captions of diverse things that vote on what is general."""


def concept_words(base: Base, called: str) -> Tensor:
    """Text features (rows, d_in) of a concept's own words and EOS in prompts about it. The base knows its token."""
    own = len(base.token_features([called])[0])
    features = base.token_features([prompt.format(called) for prompt in STIMULI])
    return torch.cat([words[-own:] for words in features])


def column_norms(words: Tensor) -> Tensor:
    """||X_:,j||_2 (d_in,) of features X (rows, d_in), each row first brought to length 1."""
    return normalize(words.float(), dim=-1).norm(dim=0)


def text_scores(weights: Mapping[str, Tensor], words: Tensor) -> dict[str, Tensor]:
    """Wanda's score S_ij = |W_ij| · ||X_:,j||_2 for each target module; X are the features (rows, d_in) it reads."""
    norms = column_norms(words)
    return {target: weight.float().abs() * norms for target, weight in weights.items()}


def gradient_scores(
    target_modules: Mapping[str, nn.Linear], losses: Losses, draws: int, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """SNIP's score S_ij = |W_ij · dL/dW_ij| for each target module, of one sample of the loss after another."""
    shifts = [torch.zeros(layer.weight.shape, device=layer.weight.device) for layer in target_modules.values()]
    probes = {target: Dense(shift.requires_grad_()) for target, shift in zip(target_modules, shifts, strict=True)}
    with attach(target_modules, probes):  # W + Δ at Δ = 0: the derivative by Δ is that by W
        for _ in range(draws):
            gradients = torch.autograd.grad(losses(generator), shifts)
            pairs = zip(target_modules.items(), gradients, strict=True)
            yield {target: (layer.weight.detach().float() * gradient).abs() for (target, layer), gradient in pairs}


def mean_scores(scores: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean score by target module."""
    total: dict[str, Tensor] = {}
    count = 0
    for one in scores:
        count += 1
        total = {target: total[target] + score if target in total else score for target, score in one.items()}
    return {target: score / count for target, score in total.items()}


def top(scores: Mapping[str, Tensor], fraction: float, scope: Scope) -> dict[str, Tensor]:
    """1[S_ij is in the top `fraction` of its layer, or of its row]: rounded to whole entries, exactly that many."""
    return {target: _top(score, fraction, scope) for target, score in scores.items()}


def voted(scores: Iterable[Mapping[str, Tensor]], fraction: float, tau: float, scope: Scope) -> dict[str, Tensor]:
    """1[S_ij is in the top `fraction` for at least tau of the given scores], by target module."""
    votes: dict[str, Tensor] = {}
    count = 0
    for one in scores:
        count += 1
        for target, mask in top(one, fraction, scope).items():
            votes[target] = votes[target] + mask if target in votes else mask.to(torch.int16)
    return {target: vote >= tau * count for target, vote in votes.items()}


def general_by_text(base: Base, fraction: float, tau: float, scope: Scope) -> dict[str, Tensor]:
    """M_gen: what Wanda's score ranks in the top `fraction` for at least tau of 128 captions of diverse things. The
    weights must be the bare base's.

    Raises:
        MnemonError: no word that captions are made of is a single token of the base.
    """
    weights = {target: layer.weight.detach() for target, layer in base.target_modules().items()}
    scores = (text_scores(weights, words) for words in base.token_features(_captions(base)))
    return voted(scores, fraction, tau, scope)


def _captions(base: Base) -> list[str]:
    try:
        return diverse_captions(base.single_token_words, CAPTIONS, seed=0)
    except ValueError as error:
        raise MnemonError(f"What is general cannot be asked of '{base.name}': {error}.") from None


def shuffled(masks: Masks, generator: torch.Generator) -> dict[str, Tensor]:
    """At each target module as many entries, at random places."""
    mixed = {}
    for target, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator, device=generator.device).to(mask.device)
        mixed[target] = mask.flatten()[order].view_as(mask)
    return mixed


def stored_masks(one: TrainedConcept) -> dict[str, Tensor]:
    """The stored masks of a concept, by target module."""
    return {target: delta.mask for target, delta in one.deltas.items() if isinstance(delta, Sparse)}


def union(learned: Sequence[TrainedConcept], like: Masks) -> dict[str, Tensor]:
    """U = OR_i M^i, with the target modules, shapes and device of `like`; all zero for no concept."""
    total = {target: torch.zeros_like(mask) for target, mask in like.items()}
    for one in learned:
        for target, mask in stored_masks(one).items():
            total[target] |= mask.to(total[target].device)
    return total


def entries(masks: Masks) -> int:
    """How many entries are set at all target modules together."""
    return sum(int(mask.sum()) for mask in masks.values())


def both(left: Masks, right: Masks) -> int:
    """How many entries are set in both masks; target modules that one of them lacks count as not set."""
    return sum(int((mask & right[target].to(mask.device)).sum()) for target, mask in left.items() if target in right)


def mask_overlap(learned: Sequence[TrainedConcept]) -> tuple[Tensor, Tensor]:
    """The overlap of the masks of t concepts, in two matrices (t, t).

    Returns:
        |M_i AND M_j| / |M_i OR M_j|, symmetric with ones on the diagonal; and |M_i AND M_j| / |M_i|, the share of
        concept i's entries that concept j changes too. Zero where a mask is empty.
    """
    masks = [stored_masks(one) for one in learned]
    shared = torch.tensor([[both(left, right) for right in masks] for left in masks], dtype=torch.float64)
    size = shared.diagonal()
    joint = size[:, None] + size[None, :] - shared
    return shared / joint.clamp(min=1), shared / size[:, None].clamp(min=1)


def _top(score: Tensor, fraction: float, scope: Scope) -> Tensor:
    ranked = score if scope == "row" else score.flatten()
    best = ranked.topk(round(fraction * ranked.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(-1, best, True).view_as(score)
