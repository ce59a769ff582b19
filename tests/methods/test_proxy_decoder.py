"""FL2T's small network and its formulas: sets, relevance, contrast."""

import math

import pytest
import torch
from torch import Tensor

from mnemon.methods.proxy_decoder import ProxyDecoder, contrast, relevance

WIDTH, CONCEPTS, PROMPTS = 16, 5, 3
CPU = torch.device("cpu")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network() -> ProxyDecoder:
    return ProxyDecoder(WIDTH, torch.Generator().manual_seed(0), CPU)


@torch.no_grad()
def test_permuting_the_concepts_permutes_and_changes_nothing_else() -> None:
    decoder, text = network(), randn(PROMPTS, 7, WIDTH)
    proxies, embeddings = randn(CONCEPTS, WIDTH, seed=1), randn(CONCEPTS, WIDTH, seed=2)
    order = torch.tensor([3, 0, 4, 2, 1])
    decoded, states = decoder(proxies, embeddings, text)
    turned_decoded, turned_states = decoder(proxies[order], embeddings[order], text)
    torch.testing.assert_close(turned_decoded, decoded[:, order])
    torch.testing.assert_close(turned_states, states[:, order])
    weights = relevance(embeddings[2], states, 2, "softmax", 0.5)
    turned = relevance(embeddings[2], turned_states, 3, "softmax", 0.5)  # concept 2 is now number 3
    torch.testing.assert_close(turned, weights[:, order])
    for positives, turned in ((states, turned_states), (decoded, turned_decoded)):
        torch.testing.assert_close(contrast(states, positives, 0.1), contrast(turned_states, turned, 0.1))


@torch.no_grad()
def test_the_prompt_counts_and_its_padding_does_not() -> None:
    decoder, text = network(), randn(1, 7, WIDTH)
    proxies, embeddings = randn(CONCEPTS, WIDTH, seed=1), randn(CONCEPTS, WIDTH, seed=2)
    said = torch.arange(7)[None] < 4
    other = torch.where(said[..., None], text, randn(1, 7, WIDTH, seed=3))
    states = decoder(proxies, embeddings, text, said)[1]
    torch.testing.assert_close(decoder(proxies, embeddings, other, said)[1], states)
    assert not torch.allclose(decoder(proxies, embeddings, text + 1, said)[1], states, atol=1e-3)


def test_equal_states_give_every_other_concept_the_weight_one() -> None:
    states = randn(1, 1, WIDTH).expand(PROMPTS, CONCEPTS, -1)
    weights = relevance(randn(WIDTH, seed=1), states, 2, "softmax", 0.5)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1, 0, 1, 1]).expand(PROMPTS, -1))


@pytest.mark.parametrize("form", ["softmax", "cosine", "sigmoid"])
def test_relevance_is_bounded_and_grows_with_likeness(form: str) -> None:
    embedding, states = randn(WIDTH), randn(1, CONCEPTS, WIDTH, seed=1)
    states[0, 4] = 3 * embedding
    weights = relevance(embedding, states, 0, form, 0.5)[0]
    assert weights[0] == 0 and (weights >= 0).all() and weights.argmax() == 4
    assert weights.sum() <= CONCEPTS - 1 + 1e-5


def test_the_printed_relevance_is_the_inner_product() -> None:
    embedding, states = randn(WIDTH), randn(1, CONCEPTS, WIDTH, seed=1)
    expected = states[0] @ embedding
    expected[3] = 0
    torch.testing.assert_close(relevance(embedding, states, 3, "inner", 0.5)[0], expected)


def test_the_contrast_as_printed_only_pushes() -> None:
    """mean_i logsumexp_j sim(S_i, S_j) / tau - 1 / tau, zero at best; its descent lowers the mean cosine of two."""
    states = randn(1, CONCEPTS, WIDTH).add(1.0).requires_grad_()  # alike at first
    cosines = torch.nn.functional.cosine_similarity(states[0, :, None], states[0, None], dim=-1)
    torch.testing.assert_close(contrast(states, states, 0.1)[0], (cosines / 0.1).logsumexp(1).mean() - 1 / 0.1)
    means = [_mean_cosine(states)]
    for _ in range(5):
        (by_states,) = torch.autograd.grad(contrast(states, states, 0.1).sum(), states)
        states = (states - by_states).detach().requires_grad_()
        means.append(_mean_cosine(states))
    assert means == sorted(means, reverse=True) and means[-1] < means[0]


def _mean_cosine(states: Tensor) -> float:
    cosines = torch.nn.functional.cosine_similarity(states[0, :, None], states[0, None], dim=-1)
    return ((cosines.sum() - CONCEPTS) / (CONCEPTS * (CONCEPTS - 1))).item()


def test_at_the_width_of_sd_15_the_network_has_the_published_size() -> None:
    """14.2 M parameters with ten proxies: 52.6 M with FL2T less 38.4 M with CIDM."""
    weights = sum(p.numel() for p in ProxyDecoder(768, torch.Generator().manual_seed(0), CPU).parameters())
    assert weights == 14_173_184 and math.isclose((weights + 10 * 768) / 1e6, 52.6 - 38.4, abs_tol=0.05)
