"""Gradients with checkpointing where the hooks of the forward pass are gone before the backward pass."""

from contextlib import ExitStack

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from mnemon.adapters import LowRank, attach
from mnemon.models.base import Base
from mnemon.models.conditioning import Conditioning
from tests.tiny import tiny_sd_base, tiny_sdxl_base
from tests.tiny_transformers import PIPELINES, tiny_base

UNETS = {"sd": tiny_sd_base, "sdxl": tiny_sdxl_base}


def gradient(base: Base, condition: Conditioning, checkpointing: bool, *, regions: bool = False) -> torch.Tensor:
    """Of an adapted prediction's mean square in the encoded prompts; no hook is left when it is computed."""
    generator = torch.Generator().manual_seed(1)
    embeds = condition.prompt_embeds.clone().requires_grad_()
    own = Conditioning(embeds, condition.pooled_prompt_embeds, condition.attention_mask)
    noisy = torch.randn(2, *base.latent_shape(), generator=generator)
    masks = torch.rand(2, 2, 8, 8, generator=generator)
    path, layer = next(iter(base.target_modules().items()))
    factors = (torch.randn(size, generator=generator) for size in ((layer.out_features, 2), (2, layer.in_features)))
    base.gradient_checkpointing(checkpointing)
    with ExitStack() as hooks:
        hooks.enter_context(attach(base.target_modules(), {path: LowRank(*factors)}))
        if regions:
            hooks.enter_context(base.regional_prompts([own[torch.tensor([1, 0])]], masks / masks.sum(1, keepdim=True)))
        loss = base.predict(noisy, torch.tensor([10, 700]), own).square().mean()
    loss.backward()
    base.gradient_checkpointing(False)
    assert embeds.grad is not None and embeds.grad.abs().max() > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.denoiser.modules())
    return embeds.grad


@pytest.mark.parametrize("regions", [False, True], ids=["one prompt", "regions"])
@pytest.mark.parametrize("family", [*UNETS, *PIPELINES])
def test_adapters_and_regions_that_are_gone_are_in_the_gradient(family: str, regions: bool) -> None:
    base = UNETS[family]() if family in UNETS else tiny_base(family)
    condition = base.encode_prompts(["a dog", "a cat"])
    plain, checkpointed = (gradient(base, condition, on, regions=regions) for on in (False, True))
    torch.testing.assert_close(plain, checkpointed, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("family", UNETS)
def test_each_layers_own_prompt_is_in_the_gradient(family: str) -> None:
    base = UNETS[family]()
    condition = base.encode_prompts(["a dog", "a cat"])
    layers = len(base.cross_attention_layers())
    scales = torch.linspace(0.5, 2, layers)[:, None, None]
    layerwise = Conditioning(condition.prompt_embeds[:, None] * scales, condition.pooled_prompt_embeds)
    plain, checkpointed = (gradient(base, layerwise, on) for on in (False, True))
    torch.testing.assert_close(plain, checkpointed, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("family", ["sd", "sdxl", "z-image", "sd3"])
def test_a_tokens_gradient_is_the_same_where_text_encoders_compute_again(family: str) -> None:
    base = UNETS[family]() if family in UNETS else tiny_base(family)

    def token_gradients(checkpointing: bool) -> tuple[list[torch.Tensor], int]:
        generator = torch.Generator().manual_seed(1)
        vectors = {one.name: torch.randn(1, one.width, generator=generator).requires_grad_() for one in base.encoders}
        layer = next(m for m in base.encoders[0].model.modules() if isinstance(m, GradientCheckpointingLayer))
        calls: list[int] = []
        base.gradient_checkpointing(checkpointing)
        handle = next(m for m in layer.modules() if isinstance(m, torch.nn.Linear)).register_forward_hook(
            lambda *_: calls.append(1)
        )
        with base.using_tokens({"rex": vectors}):
            base.encode_prompts(["a photo of <rex> dog"]).prompt_embeds.square().mean().backward()
        base.gradient_checkpointing(False)
        handle.remove()
        assert not any(module.training for encoder in base.encoders for module in encoder.model.modules())
        return [one.grad for one in vectors.values() if one.grad is not None], len(calls)

    (plain, once), (again, twice) = token_gradients(False), token_gradients(True)
    assert (once, twice) == (1, 2) and plain
    for left, right in zip(plain, again, strict=True):
        torch.testing.assert_close(left, right)
