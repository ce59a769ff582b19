"""Importance of single weights to prompts or images: scores, and 0/1 masks of the highest.

Wanda's score (Sun et al., arXiv 2306.11695) depends on prompts, SNIP's (Lee et al., arXiv 1810.02340) on images.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mnemon.adapters import Dense, attach
from mnemon.data.captions import diverse_captions
from mnemon.errors import MnemonError
from mnemon.methods.base import Losses
from mnemon.models.base import Base

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


def difference(scores: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`scores` less `others`, by target module."""
    return {target: score - others[target] for target, score in scores.items()}


def top(scores: Mapping[str, Tensor], fraction: float, scope: Scope) -> dict[str, Tensor]:
    """1[S_ij is in the top `fraction` of its layer, or of its row]: exactly `top_size` entries."""
    return {target: _top(score, fraction, scope) for target, score in scores.items()}


def top_size(shape: tuple[int, int], fraction: float, scope: Scope) -> int:
    """The entries of a layer (d_out, d_in) that are its top `fraction`, or those of its rows."""
    rows, columns = shape
    return rows * round(fraction * columns) if scope == "row" else round(fraction * rows * columns)


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
    scores = (text_scores(weights, words) for words in base.token_features(general_captions(base, CAPTIONS, seed=0)))
    return voted(scores, fraction, tau, scope)


def general_captions(base: Base, count: int, seed: int) -> list[str]:
    """Captions of diverse things in the base's words.

    Raises:
        MnemonError: none of the words that captions are made of is a single token of the base.
    """
    try:
        return diverse_captions(base.single_token_words, count, seed)
    except ValueError as error:
        raise MnemonError(f"What is general cannot be asked of '{base.name}': {error}.") from None


def _top(score: Tensor, fraction: float, scope: Scope) -> Tensor:
    ranked = score if scope == "row" else score.flatten()
    best = ranked.topk(round(fraction * ranked.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(-1, best, True).view_as(score)
