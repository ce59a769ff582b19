"""Weights of words, by the plain formula on the features that the encoders give."""

import pytest
import torch
from torch import Tensor

from mnemon.models.base import Base
from mnemon.models.prompt_syntax import parse_prompt
from tests.tiny import tiny_sd_base, tiny_sdxl_base
from tests.tiny_transformers import tiny_base

BASES = {"sd": tiny_sd_base, "sdxl": tiny_sdxl_base}
FAMILIES = [*BASES, "sd3", "flux", "flux2", "flux2-klein", "qwen-image", "z-image"]
WEIGHT = 1.5


@pytest.fixture(params=FAMILIES, name="base")
def _base(request: pytest.FixtureRequest) -> Base:
    return BASES[request.param]() if request.param in BASES else tiny_base(request.param)


def features(base: Base, prompt: str) -> Tensor:
    return base.encode_prompts([parse_prompt(prompt, base.tokens)]).prompt_embeds[0]


def test_a_token_s_difference_to_the_empty_prompt_is_multiplied() -> None:
    base = tiny_sd_base()
    plain, empty = features(base, "a red dog on the beach"), features(base, "")
    told = features(base, "a (red dog:1.5) on the (beach:0.5)")
    expected = plain.clone()
    for place, weight in ((2, 1.5), (3, 1.5), (6, 0.5)):  # BOS, a, red, dog, on, the, beach
        expected[place] = empty[place] + weight * (plain[place] - empty[place])
    torch.testing.assert_close(told, expected)
    rest = [place for place in range(len(plain)) if place not in (2, 3, 6)]
    assert torch.equal(told[rest], plain[rest])


def test_weights_change_their_words_only_and_in_proportion(base: Base) -> None:
    plain = features(base, "a red dog on the beach")
    moved = {weight: features(base, f"a red (dog:{weight}) on the beach") - plain for weight in (1.5, 2, 0, -1)}
    changed = moved[1.5].abs().sum(-1) > 0
    assert 0 < changed.sum() < len(plain) / 2
    for weight, moves in moved.items():
        torch.testing.assert_close(moves, (weight - 1) / 0.5 * moved[1.5], atol=1e-5, rtol=1e-4)


def test_a_prompt_without_weights_is_bit_equal_beside_one_with_them(base: Base) -> None:
    plain = "a red dog"
    alone, told = base.encode_prompts([plain]), base.encode_prompts([parse_prompt("a red (dog:1.5)", ()), plain])
    if alone.attention_mask is None:
        torch.testing.assert_close(told.prompt_embeds[1], alone.prompt_embeds[0])
    assert torch.equal(base.encode_prompts([plain]).prompt_embeds, alone.prompt_embeds)
    if told.pooled_prompt_embeds is not None:  # as in other tools, the pooled features have no weights
        torch.testing.assert_close(*told.pooled_prompt_embeds)


def test_a_concept_has_a_weight_like_a_word(base: Base) -> None:
    word = {name: vector[None] for name, vector in base.word_embeddings("dog").items()}
    base.set_tokens({"rex": word})
    torch.testing.assert_close(features(base, "a red (<rex>:1.5) mug"), features(base, "a red (dog:1.5) mug"))
    assert not torch.equal(features(base, "a red (<rex>:1.5) mug"), features(base, "a red <rex> mug"))


@pytest.mark.parametrize("family", ["sd", "flux", "qwen-image"])
def test_a_layerwise_or_long_concept_takes_its_weight_at_every_vector(family: str) -> None:
    base = BASES[family]() if family in BASES else tiny_base(family)
    vectors = {name: torch.randn(3, width) for name, (width, _, _) in base.embedding_statistics().items()}
    base.set_tokens({"rex": vectors})
    moved = (features(base, "a (<rex>:1.5) mug") - features(base, "a <rex> mug")).abs().sum(-1) > 0
    assert moved.sum() == 3
    if base.static_text_features:
        layers = len(base.cross_attention_layers())
        base.set_tokens({"rex": {name: torch.randn(layers, 3, one.shape[1]) for name, one in vectors.items()}})
        moved = (features(base, "a (<rex>:1.5) mug") - features(base, "a <rex> mug")).abs().sum(-1) > 0
        assert moved.shape[0] == layers and moved.sum(-1).eq(3).all()


def test_words_that_are_cut_off_take_their_weights_along() -> None:
    base = tiny_sd_base()
    with pytest.warns(UserWarning, match="is ignored"):
        told, plain = features(base, "a dog" + " (red:2)" * 30), features(base, "a dog" + " red" * 30)
    assert torch.equal(told[[0, 1, 2, 19]], plain[[0, 1, 2, 19]]) and not torch.equal(told[18], plain[18])


def test_captions_are_text() -> None:
    base = tiny_sd_base()
    told = base.encode_prompts(["a (red:1.5) dog"]).prompt_embeds[0]
    assert not torch.equal(told, features(base, "a (red:1.5) dog"))
    assert torch.equal(told, features(base, r"a \(red:1.5\) dog"))
