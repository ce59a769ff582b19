"""Scores, masks and their overlap against closed forms."""

import pytest
import torch
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.methods import importance
from mnemon.methods.cns import Cns
from mnemon.models import Base
from mnemon.training import denoising_loss
from tests.tiny import tiny_sd_base


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_text_score_is_the_weights_size_times_the_norm_of_what_it_reads() -> None:
    words = torch.tensor([[3.0, 4.0], [0.0, 0.5]])  # as rows of length 1: (0.6, 0.8) and (0, 1)
    scores = importance.text_scores({"site": torch.tensor([[1.0, -2.0], [0.0, 0.5]])}, words)
    norms = torch.tensor([0.6, (0.64 + 1.0) ** 0.5])
    torch.testing.assert_close(scores["site"], torch.tensor([[1.0, 2.0], [0.0, 0.5]]) * norms)


def test_a_concept_is_scored_on_its_name_and_eos_alone(base: Base) -> None:
    base.set_tokens({"rex": {"text_encoder": torch.zeros(1, 32)}})
    words = importance.concept_words(base, "<rex> dog")
    alone = base.token_features(["<rex> dog"])[0]
    base.set_tokens({})
    assert words.shape == (3 * len(alone), 32)  # of three prompts, the last of which is the name alone
    torch.testing.assert_close(words[-len(alone) :], alone)


def test_the_gradient_score_is_the_weight_times_the_losss_derivative(base: Base) -> None:
    target_modules, latents = base.target_modules(), torch.randn(1, *base.latent_shape(), generator=generator())

    def losses(numbers: torch.Generator) -> Tensor:
        noise, times = torch.randn(latents.shape, generator=numbers), base.schedule.sample_timesteps(1, numbers)
        return denoising_loss(base, latents, noise, times, base.encode_prompts(["a dog"]), None).sum()

    (scores,) = importance.gradient_scores(target_modules, losses, 1, generator(1))
    for target, layer in target_modules.items():
        with torch.enable_grad():
            weight = layer.weight.requires_grad_()
            (gradient,) = torch.autograd.grad(losses(generator(1)), weight)
        weight.requires_grad_(False)
        torch.testing.assert_close(scores[target], (weight * gradient).abs(), rtol=1e-4, atol=1e-9)
    assert all(not layer._forward_hooks for layer in target_modules.values())


@pytest.mark.parametrize("scope", ["layer", "row"])
def test_the_top_is_exactly_as_large_as_asked_for(scope: importance.Scope) -> None:
    scores = torch.rand(8, 25, generator=generator())
    mask = importance.top({"site": scores, "equal": torch.zeros(8, 25)}, 0.12, scope)
    for one in mask.values():
        assert int(one.sum()) == 24
        assert scope == "layer" or torch.equal(one.sum(1), torch.full((8,), 3))
    best = mask["site"]
    for row in range(8) if scope == "row" else [slice(None)]:
        assert scores[row][best[row]].min() > scores[row][~best[row]].max()


def test_an_entry_is_general_with_enough_votes() -> None:
    scores = [{"site": torch.tensor([[first, 1.0, 0.5]])} for first in (2.0, 2.0, 0.0, 2.0)]
    masks = [importance.voted(scores, 1 / 3, tau, "layer")["site"].tolist() for tau in (0.25, 0.75, 0.76)]
    assert masks == [[[True, True, False]], [[True, False, False]], [[False, False, False]]]


def test_general_neurons_are_computed_once_for_each_base(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    token_features = base.token_features
    monkeypatch.setattr(base, "token_features", lambda prompts: asked.append(len(prompts)) or token_features(prompts))
    method = Cns(p=0.1)
    first, again = (method.general_by_text(base) for _ in range(2))
    other = Cns(p=0.2).general_by_text(base)
    assert asked == [importance.CAPTIONS] * 2
    assert all(
        torch.equal(mask, again[target]) and not torch.equal(mask, other[target]) for target, mask in first.items()
    )
    assert all(mask.any() for mask in first.values())


def test_a_base_whose_tokenizer_knows_no_caption_word_is_refused(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "single_token_words", lambda words: [])
    with pytest.raises(MnemonError, match="knows none of the words"):
        importance.general_by_text(base, 0.1, 0.5, "layer")


def test_words_are_scored_by_direction_not_by_length() -> None:
    words = torch.randn(5, 7, generator=generator())
    torch.testing.assert_close(importance.column_norms(words), importance.column_norms(10 * words))
