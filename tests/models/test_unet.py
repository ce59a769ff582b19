"""What every U-Net base must do, seen through `Base`."""

import pytest
import torch
from torch.nn.functional import mse_loss

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.conditioning import Conditioning
from mnemon.models.sd import StableDiffusion
from tests.tiny import tiny_sd, tiny_sd_base, tiny_sdxl, tiny_sdxl_base, tiny_unet

BASES = {"sd": tiny_sd_base, "sdxl": tiny_sdxl_base}


@pytest.fixture(params=BASES, name="base")
def _base(request: pytest.FixtureRequest) -> Base:
    return BASES[request.param]()


def test_everything_is_frozen(base: Base) -> None:
    pipeline = base.pipeline()
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert not any(module.training for module in modules)


def test_sites_are_the_cross_attention_keys_and_values(base: Base) -> None:
    target_modules = base.target_modules()
    width = base.encode_prompts(["a dog"]).prompt_embeds.shape[-1]
    assert target_modules and all(path.endswith(("attn2.to_k", "attn2.to_v")) for path in target_modules)
    assert all(layer.in_features == width for layer in target_modules.values())
    assert all(base.denoiser.get_submodule(path) is layer for path, layer in target_modules.items())


def test_images_become_latents_of_the_said_shape_and_back(base: Base) -> None:
    images = torch.rand(2, 3, base.resolution, base.resolution)
    latents = base.encode_images(images)
    assert latents.shape == (2, *base.latent_shape()) and latents.dtype == torch.float32
    again = base.decode_latents(latents)
    assert again.shape == images.shape and again.min() >= 0 and again.max() <= 1
    assert torch.equal(latents, base.encode_images(images)), "the mode is not random"


def test_a_row_of_a_batch_is_predicted_as_if_alone(base: Base) -> None:
    noisy, timesteps = torch.randn(3, *base.latent_shape()), torch.tensor([1, 500, 999])
    condition = base.encode_prompts(["a dog", "a cat", ""])
    together = base.predict(noisy, timesteps, condition)
    alone = base.predict(noisy[1:2], timesteps[1:2], condition[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_sdxl_hears_pooled_text() -> None:
    base = tiny_sdxl_base()
    noisy, timesteps = torch.randn(1, *base.latent_shape()), torch.tensor([500])
    condition = base.encode_prompts(["a dog"])
    assert condition.pooled_prompt_embeds is not None
    deaf = Conditioning(condition.prompt_embeds, torch.zeros_like(condition.pooled_prompt_embeds))
    assert not torch.allclose(base.predict(noisy, timesteps, condition), base.predict(noisy, timesteps, deaf))


def test_half_precision_bases_answer_in_the_callers_dtype() -> None:
    base = StableDiffusion(tiny_sd().to(dtype=torch.bfloat16), name="tiny")
    condition = base.encode_prompts(["a dog"])
    assert base.predict(torch.randn(1, 4, 8, 8), torch.tensor([5]), condition).dtype == torch.float32
    assert base.encode_images(torch.rand(1, 3, 16, 16)).dtype == torch.float32
    assert base.decode_latents(torch.randn(1, 4, 8, 8)).dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient(base: Base) -> None:
    noisy, timesteps = torch.randn(2, *base.latent_shape()), torch.tensor([10, 700])
    condition = base.encode_prompts(["a dog", "a cat"])
    gradients = []
    for on in (False, True, False):
        base.gradient_checkpointing(on)
        hidden = condition.prompt_embeds.clone().requires_grad_()
        answer = base.predict(noisy, timesteps, Conditioning(hidden, condition.pooled_prompt_embeds))
        mse_loss(answer, noisy).backward()
        gradients.append(hidden.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_the_plain_pipeline_draws_with_what_is_in_the_base_now(base: Base) -> None:
    def image() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        pipeline = base.pipeline()
        pipeline.scheduler = base.schedule.sampling_scheduler()
        pipeline.set_progress_bar_config(disable=True)
        return torch.as_tensor(pipeline("a dog", num_inference_steps=2, output_type="np", generator=generator).images)

    before = image()
    layer = list(base.target_modules().values())[-1]  # values
    original = layer.weight.data
    layer.weight.data = original + torch.randn(original.shape)
    assert not torch.allclose(image(), before)
    layer.weight.data = original
    assert torch.equal(image(), before)


def test_fingerprints_tell_weights_apart() -> None:
    assert tiny_sd_base().fingerprint == tiny_sd_base().fingerprint
    assert tiny_sd_base().fingerprint != tiny_sd_base(seed=1).fingerprint
    assert StableDiffusion(tiny_sd().to(dtype=torch.bfloat16), name="tiny").fingerprint


def test_a_denoiser_that_edits_images_is_refused() -> None:
    pipeline = tiny_sd()
    pipeline.register_modules(unet=tiny_unet(32, in_channels=9))
    with pytest.raises(MnemonError, match="9 channels.*text-to-image"):
        StableDiffusion(pipeline, name="inpainting")


def test_sdxl_keeps_its_autoencoder_out_of_fp16() -> None:
    from mnemon.models.sdxl import StableDiffusionXL

    pipeline = tiny_sdxl().to(dtype=torch.float16)
    base = StableDiffusionXL(pipeline, name="tiny")
    assert base.dtype == torch.float16 and base.vae.dtype == torch.float32
