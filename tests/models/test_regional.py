"""Regions in transformers, where text and image attend together: what sees what, and under which changes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, softmax

from mnemon.adapters import LowRank, PerSampleAdapters
from mnemon.errors import MnemonError
from mnemon.methods import Start, method_from
from mnemon.methods.base import TrainedConcept
from mnemon.models.regional_cross_attention import per_prompt
from mnemon.models.regional_joint_attention import attention_bias, biased_attention, text_membership
from mnemon.models.transformer import TransformerBase
from mnemon.sampling import Composed, SamplingSettings, sample
from mnemon.sampling.regions import Region
from tests.tiny_transformers import PIPELINES, tiny_base

ALL, LEFT, RIGHT = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
SETTINGS = SamplingSettings(guidance_scale=2, num_inference_steps=2)


@pytest.fixture(params=PIPELINES, name="base")
def _base(request: pytest.FixtureRequest) -> TransformerBase:
    return tiny_base(request.param)


def test_a_region_all_over_the_image_is_the_plain_image(base: TransformerBase) -> None:
    plain = sample(base, ["a photo of a dog"], [1], SETTINGS)
    regions = [[Region("a photo of a dog", ALL)]]
    torch.testing.assert_close(
        sample(base, ["a photo of a dog"], [1], SETTINGS, regions=regions), plain, atol=1e-4, rtol=0
    )
    assert torch.equal(sample(base, ["a photo of a dog"], [1], SETTINGS), plain), "regions leave nothing behind"


def test_the_order_of_regions_and_the_batch_make_no_difference(base: TransformerBase) -> None:
    cat, dog = Region("a cat", LEFT), Region("a photo of a dog in snow", (0.4, 0.0, 1.0, 1.0))
    (one,) = sample(base, ["in snow"], [1], SETTINGS, regions=[[cat, dog]])
    (other,) = sample(base, ["in snow"], [1], SETTINGS, regions=[[dog, cat]])
    (plain,) = sample(base, ["in snow"], [1], SETTINGS)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert not torch.allclose(one, plain, atol=1e-4)
    longer = Region("a photo of a dog and a cat and a photo of a dog in snow", RIGHT)
    both = sample(base, ["in snow"] * 2, [1, 2], SETTINGS, regions=[[cat, dog], [cat, longer]])
    torch.testing.assert_close(both[0], one, atol=1e-4, rtol=0)


def test_a_text_changes_its_own_place_only(base: TransformerBase) -> None:
    """In the first layer where text and image meet; further on the image's tokens tell one another."""
    pattern = r"layers\.0\.attention" if base.family == "z-image" else r"transformer_blocks\.0\.attn"
    (layer,) = base._modules_at(pattern)
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(
        lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    places = torch.zeros(1, 3, 16, 16)
    places[:, 1, :, :8], places[:, 2, :, 8:] = 1, 1
    noisy = torch.randn(1, *base.latent_shape(), generator=torch.Generator().manual_seed(0))
    told = base.encode_prompts(["in snow", "a dog", "a cat", "a photo"]).with_guidance(2)
    for right in (2, 3):
        with base.regional_prompts([told[torch.tensor([1])], told[torch.tensor([right])]], places):
            base.predict(noisy, torch.tensor([500.0]), told[:1])
    handle.remove()
    side = base.resolution // base.step
    before, after = (one[0, : side * side].unflatten(0, (side, side)) for one in seen)
    torch.testing.assert_close(before[:, : side // 2], after[:, : side // 2])
    assert (before - after)[:, side // 2 :].abs().amin() > 0 or (before - after)[:, side // 2 :].abs().sum() > 1e-3


def learned(base: TransformerBase, name: str) -> TrainedConcept:
    generator = torch.Generator().manual_seed(len(name))
    learner = method_from("lora-compose", {"rank": 2}).begin(Start(name, "dog", base, [], generator))
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return learner.export()


def test_a_region_is_drawn_under_its_own_changes(base: TransformerBase) -> None:
    concepts = [learned(base, "rex"), learned(base, "mimi")]
    rex, mimi, both = "a photo of <rex> dog", "a photo of <mimi> dog", [Region("a dog", LEFT), Region("a dog", RIGHT)]
    with Composed(base, method_from("lora-compose", {"rank": 2}), concepts) as composed:
        plain = composed.sample([rex], [1], SETTINGS)
        everywhere = composed.sample([rex], [1], SETTINGS, regions=[[Region(rex, ALL)]])
        torch.testing.assert_close(everywhere, plain, atol=1e-4, rtol=0)
        if (
            base.encode_prompts([rex]).pooled_prompt_embeds is None
        ):  # else the image's prompt is heard as a whole as well
            within = composed.sample(["in snow"], [1], SETTINGS, regions=[[Region(rex, ALL)]])
            torch.testing.assert_close(within, plain, atol=1e-4, rtol=0)
        there = composed.sample(["a dog"], [1], SETTINGS, regions=[[Region(rex, LEFT), Region(mimi, RIGHT)]])
        back = composed.sample(["a dog"], [1], SETTINGS, regions=[[Region(mimi, RIGHT), Region(rex, LEFT)]])
        torch.testing.assert_close(there, back, atol=1e-4, rtol=0)
        assert not torch.allclose(there, composed.sample(["a dog"], [1], SETTINGS, regions=[both]), atol=1e-4)


def test_a_text_that_a_place_belongs_to_in_part_is_counted_in_part() -> None:
    """One place of the image, heard by two texts of two and of one token, with the weights 0.25 and 0.75."""
    heard = torch.tensor([[True, True, True, False]])
    share = torch.cat(
        [text_membership(2, 2, heard), torch.tensor([[[0.25], [0.75]]])], dim=2
    )  # four of text, one image
    bias = attention_bias(share, slice(4, 5))
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, 5, 8, generator=generator)
    found = scaled_dot_product_attention(query, key, value, attn_mask=bias)[0, 0]
    logits = (query @ key.transpose(2, 3))[0, 0] / 8**0.5
    place = logits[4].exp() * torch.tensor([0.25, 0.25, 0.75, 0.0, 1.0])
    torch.testing.assert_close(found[4], place / place.sum() @ value[0, 0])
    torch.testing.assert_close(found[3], value[0, 0, 3]), "what is only filled up sees itself"
    own = softmax(logits[0, [0, 1, 4]] + torch.tensor([0.0, 0.0, 0.25]).log().nan_to_num(neginf=0), dim=0)
    torch.testing.assert_close(found[0], own @ value[0, 0, [0, 1, 4]])


def test_tokens_pass_the_changes_of_their_texts() -> None:
    target, generator = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    changes = [LowRank(torch.randn(2, 1, generator=generator), torch.randn(1, 3, generator=generator)) for _ in "ab"]
    share = torch.tensor([[[1.0, 0.0, 0.25], [0.0, 1.0, 0.75]]])  # two texts, three tokens
    inputs = torch.randn(1, 3, 3, generator=generator)
    bare = target(inputs)
    routed = PerSampleAdapters({"site": target}, [{"site": change} for change in changes])
    routed.set_adapter_index([0, 1])
    with per_prompt([target], share):
        found = target(inputs)
    routed.remove()
    told = torch.stack([inputs @ change.matrix().T for change in changes], dim=1)  # (1, texts, tokens, 2)
    torch.testing.assert_close(found, bare + (told * share[..., None]).sum(1))
    assert torch.equal(target(inputs), bare)


def test_an_attention_that_takes_no_mask_is_refused() -> None:
    with biased_attention([layer := nn.Linear(2, 2)], torch.zeros(1)), pytest.raises(MnemonError, match="native"):
        layer(torch.zeros(1, 2))
