"""Concept tokens: by name, spliced, trained through, and gone without a trace."""

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.tokens import concepts_in
from tests.tiny import LENGTH, tiny_sd, tiny_sd_base, tiny_sdxl, tiny_sdxl_base

BASES = {
    "sd": tiny_sd_base,
    "sd, legacy end mark": lambda: tiny_sd_base(eos_token_id=2),
    "sdxl": lambda: tiny_sdxl_base(eos_token_id=None),
    "sdxl, legacy end mark": tiny_sdxl_base,
}


@pytest.fixture(params=BASES, name="base")
def _base(request: pytest.FixtureRequest) -> Base:
    return BASES[request.param]()


def tokens(base: Base, seed: int, vectors: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    widths = {name: width for name, (width, _, _) in base.embedding_statistics().items()}
    return {name: torch.randn(vectors, width, generator=generator) for name, width in widths.items()}


def table_row(base: Base, word: str) -> dict[str, torch.Tensor]:
    return {name: vector[None] for name, vector in base.word_embeddings(word).items()}


def test_prompts_are_encoded_as_the_pipelines_do() -> None:
    pipeline, base = tiny_sd(), tiny_sd_base()
    expected, empty = pipeline.encode_prompt("a photo of a dog", "cpu", 1, True, "")
    assert torch.equal(base.encode_prompts(["a photo of a dog"]).prompt_embeds, expected)
    assert torch.equal(base.encode_prompts([""]).prompt_embeds, empty)


def test_prompts_are_encoded_as_the_sdxl_pipeline_does() -> None:
    pipeline, base = tiny_sdxl(), tiny_sdxl_base()
    hidden, empty, pooled, empty_pooled = pipeline.encode_prompt("a photo of a dog", device="cpu")
    said = base.encode_prompts(["a photo of a dog", ""])
    torch.testing.assert_close(said.prompt_embeds, torch.cat([hidden, empty]))
    torch.testing.assert_close(said.pooled_prompt_embeds, torch.cat([pooled, empty_pooled]))


def test_a_token_with_a_words_vector_is_that_word(base: Base) -> None:
    base.set_tokens({"rex": table_row(base, "dog")})
    told, expected = base.encode_prompts(["a red <rex> on the beach"]), base.encode_prompts(["a red dog on the beach"])
    assert torch.equal(told.prompt_embeds, expected.prompt_embeds)
    if expected.pooled_prompt_embeds is not None:
        assert torch.equal(told.pooled_prompt_embeds, expected.pooled_prompt_embeds)


def test_several_vectors_stand_for_as_many_words(base: Base) -> None:
    words = [table_row(base, "red"), table_row(base, "dog")]
    base.set_tokens({"rex": {name: torch.cat([word[name] for word in words]) for name in words[0]}})
    told = base.encode_prompts(["a photo of <rex> in snow"])
    expected = base.encode_prompts(["a photo of red dog in snow"])
    assert torch.equal(told.prompt_embeds, expected.prompt_embeds)


def test_text_after_a_token_changes_the_pooled_vector() -> None:
    """With `eos_token_id` 2 a token at an id above the table's would be taken for the end of the text."""
    base = tiny_sdxl_base(eos_token_id=2)
    base.set_tokens({"rex": tokens(base, seed=1)})
    pooled = base.encode_prompts(["<rex> on the beach", "<rex> in snow"]).pooled_prompt_embeds
    assert pooled is not None and not torch.allclose(pooled[0], pooled[1])


def test_the_legacy_end_mark_gives_the_same_as_the_true_one() -> None:
    old, new = tiny_sdxl_base(eos_token_id=2), tiny_sdxl_base(eos_token_id=None)
    for base in (old, new):
        base.set_tokens({"rex": tokens(base, seed=1, vectors=3)})
    prompts = ["a photo of <rex> in snow"]
    assert torch.equal(
        old.encode_prompts(prompts).pooled_prompt_embeds, new.encode_prompts(prompts).pooled_prompt_embeds
    )


def test_gradients_reach_only_the_vectors_in_the_prompt(base: Base) -> None:
    rex, mia = tokens(base, seed=1), tokens(base, seed=2)
    for vector in (*rex.values(), *mia.values()):
        vector.requires_grad_()
    base.set_tokens({"rex": rex, "mia": mia})
    condition = base.encode_prompts(["a photo of <rex>", "a photo of <rex>", "a dog"])
    timesteps = torch.tensor([10, 500, 900])
    base.predict(torch.randn(3, *base.latent_shape()), timesteps, condition).square().sum().backward()
    assert all(vector.grad is not None and vector.grad.abs().sum() > 0 for vector in rex.values())
    assert all(vector.grad is None or vector.grad.abs().sum() == 0 for vector in mia.values())
    assert all(parameter.grad is None for parameter in base.denoiser.parameters())


def test_a_prompt_does_not_hear_the_others_of_its_batch(base: Base) -> None:
    base.set_tokens({"rex": tokens(base, seed=1, vectors=2), "mia": tokens(base, seed=2)})
    prompts = ["a photo of <mia>", "a <rex> and a <mia>", "a dog", "<rex> in snow"]
    together = base.encode_prompts(prompts)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(together.prompt_embeds[row], base.encode_prompts([prompt]).prompt_embeds[0])


def test_removing_tokens_leaves_no_trace(base: Base) -> None:
    prompts = ["a photo of a dog", ""]
    before = base.encode_prompts(prompts)
    base.set_tokens({"rex": tokens(base, seed=1)})
    base.encode_prompts(["a photo of <rex>"])
    during = base.encode_prompts(prompts)
    base.set_tokens({})
    after = base.encode_prompts(prompts)
    assert torch.equal(before.prompt_embeds, during.prompt_embeds) and torch.equal(
        before.prompt_embeds, after.prompt_embeds
    )
    with pytest.raises(MnemonError, match="<rex>"):
        base.encode_prompts(["a photo of <rex>"])


def test_an_unknown_concept_is_named_with_the_known_ones(base: Base) -> None:
    base.set_tokens({"rex": tokens(base, seed=1), "mia": tokens(base, seed=2)})
    with pytest.raises(MnemonError, match=r"<max>.*<mia>, <rex>"):
        base.encode_prompts(["a photo of <max>"])


def test_names_are_read_as_clip_reads_words(base: Base) -> None:
    base.set_tokens({"rex-2_b": tokens(base, seed=1)})
    assert torch.equal(
        base.encode_prompts(["a <Rex-2_B>"]).prompt_embeds, base.encode_prompts(["a <rex-2_b>"]).prompt_embeds
    )
    assert concepts_in("<Rex> and <mia>, <rex> again, <|endoftext|> < 3") == ["rex", "mia"]


def test_vectors_of_another_base_are_refused() -> None:
    base, other = tiny_sd_base(), tiny_sdxl_base()
    with pytest.raises(MnemonError, match=r"<rex>.*another base"):
        base.set_tokens({"rex": {"text_encoder": torch.zeros(1, 7)}})
    with pytest.raises(MnemonError, match=r"<rex>.*text_encoder_2"):
        other.set_tokens({"rex": tokens(base, seed=1)})


def test_words_too_many_are_ignored_with_a_warning(base: Base) -> None:
    start = " ".join(["a", "photo", "of", "a", "dog", "in"] * 3)  # 18 words: just fits
    with pytest.warns(UserWarning, match="'snow beach' is ignored"):
        long = base.encode_prompts([f"{start} snow beach"])
    assert torch.equal(long.prompt_embeds, base.encode_prompts([start]).prompt_embeds)


def test_a_concept_is_never_cut_off(base: Base) -> None:
    base.set_tokens({"rex": tokens(base, seed=1, vectors=2)})
    words = ["dog"] * (LENGTH - 4)
    base.encode_prompts([" ".join([*words, "<rex>"])])
    with pytest.raises(MnemonError, match="concept would be cut off"):
        base.encode_prompts([" ".join([*words, "a", "<rex>"])])


def test_statistics_and_word_vectors(base: Base) -> None:
    for name, (width, _mean, deviation) in base.embedding_statistics().items():
        assert base.word_embeddings("red dog")[name].shape == (width,)
        assert deviation > 0
        both = (base.word_embeddings("red")[name] + base.word_embeddings("dog")[name]) / 2
        torch.testing.assert_close(base.word_embeddings("red dog")[name], both)
    with pytest.raises(MnemonError, match="empty word"):
        base.word_embeddings("")
