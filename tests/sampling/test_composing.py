"""A base with concepts in it, and as it was after."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from mnemon.adapters import Delta, Dense, sum_deltas
from mnemon.errors import MnemonError
from mnemon.methods.base import TrainedConcept, named
from mnemon.methods.lora import Lora
from mnemon.models.base import Base
from mnemon.sampling import Composed, SamplingSettings, sample
from mnemon.sampling.regions import Region
from tests.tiny import tiny_sd_base, tiny_sdxl_base

HOW = SamplingSettings(guidance_scale=3.0, num_inference_steps=3)


class Summing(Lora):
    """Stands in for a method that composes once."""

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        assert prompt is None
        return dict(sum_deltas([one.deltas for one in learned]))


class PerPrompt(Lora):
    """Stands in for a method that composes for each prompt: the concepts it names."""

    per_prompt = True
    asked: list[str | None] = []

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        self.asked.append(prompt)
        return dict(sum_deltas([one.deltas for one in named(learned, prompt)]))


class Branching(PerPrompt):
    """Stands in for a method that averages predictions: one for each concept the prompt names."""

    def branches(self, base: Base, learned: Sequence[TrainedConcept], prompt: str) -> list[dict[str, Delta]]:
        return [dict(one.deltas) for one in named(learned, prompt)] or [{}]


@pytest.fixture(params=[tiny_sd_base, tiny_sdxl_base], name="base")
def _base(request: pytest.FixtureRequest) -> Base:
    return request.param()


def concept(base: Base, name: str, seed: int) -> TrainedConcept:
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        target: Dense(0.3 * torch.randn(layer.weight.shape, generator=generator))
        for target, layer in base.target_modules().items()
    }
    widths = {encoder: width for encoder, (width, _, _) in base.embedding_statistics().items()}
    tokens = {encoder: torch.randn(2, width, generator=generator) for encoder, width in widths.items()}
    return TrainedConcept(name, None, deltas, tokens)


def weights(base: Base) -> list[torch.Tensor]:
    return [layer.weight.clone() for layer in base.target_modules().values()]


@pytest.mark.parametrize("method", [Summing(), PerPrompt()])
def test_all_is_restored_on_leaving_even_by_an_error(base: Base, method: Any) -> None:
    base.set_tokens({"old": concept(base, "old", 9).tokens})
    before, plain = weights(base), sample(base, ["a dog"], [1], HOW)
    with pytest.raises(MnemonError, match="<old>"), Composed(base, method, [concept(base, "rex", 1)]) as model:
        model.sample(["a photo of <rex>"], [1], HOW)
        model.sample(["a photo of <old>"], [1], HOW)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(base), strict=True))
    assert torch.equal(sample(base, ["a dog"], [1], HOW), plain)
    base.encode_prompts(["a photo of <old>"])
    with pytest.raises(MnemonError, match="<rex>"):
        base.encode_prompts(["a photo of <rex>"])


def test_folded_concepts_are_in_every_image(base: Base) -> None:
    plain = sample(base, ["a dog"], [1], HOW)
    with Composed(base, Summing(), [concept(base, "rex", 1), concept(base, "mia", 2)]) as model:
        assert not torch.allclose(model.sample(["a dog"], [1], HOW), plain)
        both = ["a <rex> and a <mia>", "a photo of <mia>"]
        assert torch.equal(model.sample(both, [1, 2], HOW), sample(base, both, [1, 2], HOW))


def test_a_method_that_composes_per_prompt_is_asked_once_for_each(base: Base) -> None:
    PerPrompt.asked.clear()
    method, prompts = PerPrompt(), ["a photo of <mia>", "a dog", "a photo of <mia>", "<rex> in snow"]
    plain = sample(base, ["a dog"], [2], HOW)
    with Composed(base, method, [concept(base, "rex", 1), concept(base, "mia", 2)]) as model:
        seen: list[tuple[int, int]] = []
        images = model.sample(
            prompts,
            [1, 2, 3, 4],
            replace(HOW, batch_size=1),
            on_step=lambda done, total: seen.append((done, total)),
        )
        assert method.asked == ["a photo of <mia>", "a dog", "<rex> in snow"]
        assert seen == [(done, 12) for done in range(1, 13)]
        alone = torch.cat([model.sample([p], [s], HOW) for p, s in zip(prompts, [1, 2, 3, 4], strict=True)])
    torch.testing.assert_close(images, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(images[1:2], plain, atol=1e-5, rtol=0)


def test_a_concept_of_another_base_changes_nothing() -> None:
    base = tiny_sd_base()
    before = weights(base)
    wrong = TrainedConcept("rex", None, concept(base, "rex", 1).deltas, {"text_encoder": torch.zeros(1, 7)})
    with pytest.raises(MnemonError, match="<rex>"), Composed(base, Summing(), [wrong]):
        pass
    assert all(torch.equal(a, b) for a, b in zip(before, weights(base), strict=True))


def test_nothing_learned_is_the_bare_base(base: Base) -> None:
    plain = sample(base, ["a dog"], [1], HOW)
    for method in (Summing(), PerPrompt()):
        with Composed(base, method, []) as model:
            assert torch.equal(model.sample(["a dog"], [1], HOW), plain)
            assert model.sample([], [], HOW).shape[0] == 0


def test_predictions_of_several_branches_are_averaged_at_every_step(base: Base) -> None:
    rex, mia = concept(base, "rex", 1), concept(base, "mia", 2)
    prompts = ["<rex> and <mia>", "<mia>", "a dog"]
    with Composed(base, Branching(), [rex, mia]) as model:
        both, one, none = model.sample(prompts, [1, 2, 3], HOW)
        assert not torch.allclose(both, model.sample(["<mia> and <mia>"], [1], HOW)[0])
    with Composed(base, PerPrompt(), [rex, mia]) as model:
        torch.testing.assert_close(one, model.sample(["<mia>"], [2], HOW)[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(none, sample(base, ["a dog"], [3], HOW)[0], atol=1e-5, rtol=0)


def test_layer_wise_tokens_tell_each_layer_its_own(base: Base) -> None:
    layers = len(base.cross_attention_layers())
    widths = {encoder: width for encoder, (width, _, _) in base.embedding_statistics().items()}
    generator = torch.Generator().manual_seed(0)
    vectors = {encoder: torch.randn(1, 2, width, generator=generator) for encoder, width in widths.items()}
    alike = {encoder: same.expand(layers, -1, -1) for encoder, same in vectors.items()}
    apart = {encoder: same.clone() for encoder, same in alike.items()}
    for different in apart.values():
        different[-1] *= -1
    images = []
    for tokens in ({encoder: same[0] for encoder, same in vectors.items()}, alike, apart):
        base.set_tokens({"rex": tokens})
        images.append(sample(base, ["a dog", "a photo of <rex>"], [1, 2], HOW))
        assert base.token_features(["<rex> dog"])[0].shape[-2] == 4  # two vectors, the noun, the end mark
    torch.testing.assert_close(images[0], images[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(images[1][0], images[2][0], atol=1e-5, rtol=0)
    assert not torch.allclose(images[1][1], images[2][1], atol=1e-4)
    assert not any(module._forward_pre_hooks for module in base.denoiser.modules())


def test_a_region_hears_its_own_prompt_under_its_own_changes(base: Base) -> None:
    whole, half = [Region("<mia>", (0.0, 0.0, 1.0, 1.0))], [Region("<mia>", (0.0, 0.0, 0.5, 1.0))]
    nothing = [Region("<mia>", (0.0, 0.0, 1e-6, 1e-6))]
    with Composed(base, PerPrompt(), [concept(base, "rex", 1), concept(base, "mia", 2)]) as model:
        mia, rex = model.sample(["<mia>", "<rex>"], [1, 1], HOW)
        everywhere, left, nowhere = model.sample(["<rex>"] * 3, [1] * 3, HOW, regions=[whole, half, nothing])
    torch.testing.assert_close(nowhere, rex, atol=1e-5, rtol=0)
    assert not torch.allclose(left, rex, atol=1e-3) and not torch.allclose(left, mia, atol=1e-3)
    if base.family == "sd":  # SDXL hears the image's own prompt as a whole too
        torch.testing.assert_close(everywhere, mia, atol=1e-5, rtol=0)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in base.denoiser.modules())


def test_regions_of_layer_wise_concepts_and_of_several_branches(base: Base) -> None:
    rex, mia = concept(base, "rex", 1), concept(base, "mia", 2)
    layers = len(base.cross_attention_layers())
    deep = TrainedConcept("deep", None, {}, {encoder: v.expand(layers, -1, -1) for encoder, v in mia.tokens.items()})
    halves = [Region("<rex>", (0.0, 0.0, 0.5, 1.0)), Region("<deep>", (0.5, 0.0, 1.0, 1.0))]
    with Composed(base, Branching(), [rex, mia, deep]) as model:
        regional = model.sample(["a dog", "<rex> and <mia>"], [1, 2], HOW, regions=[halves, halves])
        alone = model.sample(["<rex> and <mia>"], [2], HOW, regions=[halves], feather=0.0)
    torch.testing.assert_close(regional[1:], alone, atol=1e-5, rtol=0)
