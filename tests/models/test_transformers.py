"""What every transformer family must do: hear, train and draw as its own diffusers pipeline does."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.models import FAMILIES
from mnemon.models.conditioning import Conditioning
from mnemon.models.noise_schedule import TRAINING_SHIFT_STEPS
from mnemon.models.transformer import TransformerBase, pack_latents, patchify, unpack_latents, unpatchify
from mnemon.sampling import SamplingSettings, sample
from mnemon.training.loss import denoising_loss
from tests.tiny_transformers import (
    LENGTHS,
    PIPELINES,
    SIDE,
    base_on,
    shared_pipeline,
    tiny_base,
    tiny_flux,
    tiny_flux2,
    tiny_flux2_klein,
    tiny_sd3,
)

PROMPTS = ["a photo of a dog", "a red mug on the beach, with green dots", "a photo of a dog"]
SEEDS = [3, 4, 5]
FAMILY = {"FluxPipeline": "flux", "Flux2Pipeline": "flux2", "Flux2KleinPipeline": "flux2-klein"}
STEPS = 3


@pytest.fixture(params=PIPELINES, name="base")
def _base(request: pytest.FixtureRequest) -> TransformerBase:
    return tiny_base(request.param)


def said(family: str, pipeline: Any, prompts: list[str]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Hidden states and pooled vector of each prompt as the pipeline encodes it alone."""
    found = []
    for prompt in prompts:
        if family == "sd3":
            hidden, _, pooled, _ = pipeline.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)
        elif family == "flux":
            hidden, pooled, _ = pipeline.encode_prompt(prompt)
        else:
            hidden, pooled = pipeline.encode_prompt([prompt])[0], None
        found.append((hidden[0], None if pooled is None else pooled[0]))
    return found


@torch.no_grad()
@pytest.mark.parametrize("family", PIPELINES)
def test_prompts_are_encoded_as_the_pipeline_does(family: str) -> None:
    base = FAMILIES[family](shared_pipeline(family), name="of full length")
    prompts = [*PROMPTS[:2], "", "  a  cat <3"]
    condition = base.encode_prompts(prompts)
    for row, (hidden, pooled) in enumerate(said(family, shared_pipeline(family), prompts)):
        own = condition.prompt_embeds[row]
        own = own if condition.attention_mask is None else own[condition.attention_mask[row]]
        torch.testing.assert_close(own, hidden, atol=1e-5, rtol=1e-4)
        if pooled is not None:
            torch.testing.assert_close(condition.pooled_prompt_embeds[row], pooled)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:The prompt")
@pytest.mark.parametrize("family", PIPELINES)
def test_long_prompts_are_cut_as_the_pipeline_does(family: str) -> None:
    base = FAMILIES[family](shared_pipeline(family), name="of full length")
    prompt = " ".join(["dog on the beach"] * 150)
    condition = base.encode_prompts([prompt])
    hidden, _ = said(family, shared_pipeline(family), [prompt])[0]
    torch.testing.assert_close(
        condition.prompt_embeds[0], hidden[: condition.prompt_embeds.shape[1]], atol=1e-5, rtol=1e-4
    )


def images_of(pipeline: Any, guidance: float, negative: str | None, prompts: list[str], seeds: list[int]) -> Any:
    """The pipeline's own images, with its own scheduler, each drawn alone."""
    family = type(pipeline).__name__
    how: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "pt", "height": SIDE, "width": SIDE}
    if family in ("StableDiffusion3Pipeline", "ZImagePipeline"):
        how["negative_prompt"] = negative
    if "Flux" in family:
        how["max_sequence_length"] = LENGTHS[FAMILY[family]]
    how["guidance_scale"] = guidance - 1 if family == "ZImagePipeline" else guidance
    if family == "QwenImagePipeline":
        del how["guidance_scale"]
        how |= {"true_cfg_scale": guidance, "negative_prompt": negative if guidance > 1 else None}
    drawn = [
        pipeline(prompt=prompt, generator=torch.Generator().manual_seed(seed), **how).images
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return torch.cat(drawn)


@pytest.mark.parametrize("guidance", [3.5, 1.0])
def test_images_are_those_of_the_pipeline(base: TransformerBase, guidance: float) -> None:
    negative = "a blue car" if base.family in ("sd3", "qwen-image", "z-image") else ""
    expected = images_of(shared_pipeline(base.family), guidance, negative, PROMPTS, SEEDS)
    drawn = sample(base, PROMPTS, SEEDS, SamplingSettings(guidance, STEPS, negative))
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=0)
    assert drawn.std() > 0.01


@pytest.mark.parametrize(
    ("family", "build"),
    [
        ("flux", lambda: {"dev": False}),
        ("flux2-klein", lambda: {"is_distilled": True}),
        ("sd3", lambda: {"t5": False}),
    ],
)
def test_images_of_other_checkpoints_of_a_family(family: str, build: Any) -> None:
    """FLUX.1 schnell has no guidance, klein may be distilled, SD 3 may come without T5."""
    pipeline = {"flux": tiny_flux, "flux2-klein": tiny_flux2_klein, "sd3": tiny_sd3}[family](**build())
    pipeline.set_progress_bar_config(disable=True)
    expected = images_of(pipeline, 3.5, None, PROMPTS[:1], SEEDS[:1])
    drawn = sample(base_on(pipeline, family), PROMPTS[:1], SEEDS[:1], SamplingSettings(3.5, STEPS))
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=0)


def test_the_schedule_follows_the_size_of_the_image() -> None:
    for family in PIPELINES:
        base = tiny_base(family)
        dynamic = shared_pipeline(family).scheduler.config.use_dynamic_shifting
        levels = []
        for side in (SIDE, 2 * SIDE):
            base.resolution = side
            scheduler = base.schedule.sampling_scheduler()
            scheduler.set_timesteps(TRAINING_SHIFT_STEPS)
            drawn = base.schedule.sample_timesteps(2000, torch.Generator().manual_seed(0))
            levels.append((scheduler.timesteps.mean(), drawn.mean()))
            assert base.latent_shape()[1] * (4 if "flux2" in family else 2) == side
        assert (levels[1][0] > levels[0][0]) == dynamic and (levels[1][1] > levels[0][1]) == dynamic
        assert abs(levels[0][0] - levels[0][1]) < 40 or family == "sd3", "trained where it is drawn"


def test_a_side_between_two_steps_is_refused(base: TransformerBase) -> None:
    for side in (SIDE + 1, 0):
        with pytest.raises(MnemonError, match=rf"not {side}: choose"):
            base.resolution = side
    assert base.resolution == SIDE


def test_the_true_flow_has_no_loss(base: TransformerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps along the target lead from noise to image, at every timestep that is trained."""
    clean, noise = torch.randn(4, *base.latent_shape()), torch.randn(4, *base.latent_shape())
    times = base.schedule.sample_timesteps(4, torch.Generator().manual_seed(0))
    assert ((times > 0) & (times <= 1000)).all()
    target = base.schedule.target(clean, noise, times)
    noisy = base.schedule.add_noise(clean, noise, times)
    torch.testing.assert_close(noisy - (times / 1000)[:, None, None, None] * target, clean, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(base, "predict", lambda *_: target)
    condition = base.encode_prompts(["a dog"] * 4)
    assert denoising_loss(base, clean, noise, times, condition).max() == 0
    scheduler = base.schedule.sampling_scheduler()
    scheduler.set_timesteps(5)
    latents = noise
    for time in scheduler.timesteps:
        latents = scheduler.step(target, time, latents).prev_sample
    torch.testing.assert_close(latents, clean, atol=1e-5, rtol=1e-5)


def test_sites_turn_text_into_keys_and_values(base: TransformerBase) -> None:
    target_modules = base.target_modules()
    assert target_modules and all(base.denoiser.get_submodule(path) is layer for path, layer in target_modules.items())
    names = {path.rpartition(".")[2] for path in target_modules}
    assert names <= {"add_k_proj", "add_v_proj", "to_k", "to_v"}
    assert len(base.cross_attention_layers()) * 2 == len(target_modules)
    # What a target module gives changes with the prompt.
    noisy, times = torch.randn(1, *base.latent_shape()), torch.tensor([500.0])
    outputs: list[dict[str, torch.Tensor]] = []
    for prompt in ("a dog", "a red mug"):
        given: dict[str, torch.Tensor] = {}
        hooks = [
            layer.register_forward_hook(lambda _, __, out, path=path, given=given: given.update({path: out}))
            for path, layer in target_modules.items()
        ]
        base.predict(noisy, times, base.encode_prompts([prompt]))
        outputs.append(given)
        for hook in hooks:
            hook.remove()
    same = [path for path in target_modules if outputs[0][path].shape == outputs[1][path].shape]
    assert not any(torch.allclose(outputs[0][path], outputs[1][path]) for path in same)


def test_text_alone_is_adapted_but_where_image_and_text_share_a_layer(base: TransformerBase) -> None:
    lengths: dict[str, int] = {}
    hooks = [
        layer.register_forward_hook(lambda _, inputs, __, path=path: lengths.update({path: inputs[0].shape[-2]}))
        for path, layer in base.target_modules().items()
    ]
    base.predict(torch.randn(1, *base.latent_shape()), torch.tensor([500.0]), base.encode_prompts(["a dog"]))
    for hook in hooks:  # other tests share the modules
        hook.remove()
    shared = {path.split(".")[0] for path, length in lengths.items() if length > min(lengths.values())}
    assert shared == {"flux": {"single_transformer_blocks"}, "z-image": {"layers"}}.get(base.family, set())


def test_a_row_of_a_batch_is_predicted_as_if_alone(base: TransformerBase) -> None:
    noisy, times = torch.randn(3, *base.latent_shape()), torch.tensor([1.0, 500.0, 999.0])
    condition = base.encode_prompts(["a dog", "a cat on the beach and a red car in snow", ""])
    together = base.predict(noisy, times, condition)
    alone = base.predict(noisy[1:2], times[1:2], condition[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)
    assert together.shape == noisy.shape


def test_images_become_latents_of_the_said_shape_and_back(base: TransformerBase) -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    latents = base.encode_images(images)
    assert latents.shape == (2, *base.latent_shape()) and latents.dtype == torch.float32
    again = base.decode_latents(latents)
    assert again.shape == images.shape and again.min() >= 0 and again.max() <= 1


def test_what_the_autoencoder_is_given_is_scaled_back(base: TransformerBase) -> None:
    """With an autoencoder that encodes to what it last decoded, latents come back as they were."""
    vae, latents = LastDecoded(base.vae), torch.randn(1, *base.latent_shape())
    base.vae = vae
    base.decode_latents(latents)
    torch.testing.assert_close(base.encode_images(torch.zeros(1, 3, SIDE, SIDE)), latents, atol=1e-5, rtol=1e-5)
    assert not any(given.shape == latents.shape and torch.equal(given, latents) for given in vae.given)


class LastDecoded:
    """An autoencoder that returns as latents what it was given to decode."""

    def __init__(self, vae: Any) -> None:
        self.config, self.dtype, self.bn = vae.config, vae.dtype, getattr(vae, "bn", None)
        self.given: list[torch.Tensor] = []

    def decode(self, latents: torch.Tensor) -> Any:
        self.given.append(latents)
        return SimpleNamespace(sample=latents)

    def encode(self, images: torch.Tensor) -> Any:
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: self.given[-1]))


def test_half_precision_bases_answer_in_the_callers_dtype(base: TransformerBase) -> None:
    pipeline = PIPELINES[base.family]().to(dtype=torch.bfloat16)
    half = type(base)(pipeline, name="half")
    half.resolution = SIDE
    condition = half.encode_prompts(["a dog"])
    noisy = torch.randn(1, *half.latent_shape())
    assert half.predict(noisy, torch.tensor([500.0]), condition).dtype == torch.float32
    assert half.encode_images(torch.rand(1, 3, SIDE, SIDE)).dtype == torch.float32
    assert half.decode_latents(noisy).dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient(base: TransformerBase) -> None:
    noisy, times = torch.randn(2, *base.latent_shape()), torch.tensor([10.0, 700.0])
    condition = base.encode_prompts(["a dog", "a cat"])
    gradients = []
    for on in (False, True, False):
        base.gradient_checkpointing(on)
        hidden = condition.prompt_embeds.clone().requires_grad_()
        told = Conditioning(hidden, condition.pooled_prompt_embeds, condition.attention_mask)
        base.predict(noisy, times, told).square().mean().backward()
        gradients.append(hidden.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().sum() > 0


def test_a_prompt_in_a_processors_chat_is_the_pipelines() -> None:
    """FLUX.2 dev comes with a processor around its tokenizer, whose template says the start mark itself."""
    pipeline = tiny_flux2()
    pipeline.tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    pipeline.tokenizer = Processor(pipeline.tokenizer)
    base = type(tiny_base("flux2"))(pipeline, name="dev")
    expected, _ = pipeline.encode_prompt(["a photo of a dog"])
    torch.testing.assert_close(base.encode_prompts(["a photo of a dog"]).prompt_embeds, expected, atol=1e-5, rtol=1e-4)


class Processor:
    """Stands in for a processor of transformers, whose own needs torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, tokenize: bool, add_generation_prompt: bool, **options: Any) -> Any:
        said = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        if not tokenize:
            return said
        del options["return_dict"]
        return self.tokenizer(said, add_special_tokens=not said[0].startswith(self.tokenizer.bos_token), **options)


def test_conditions_of_different_lengths_are_put_together() -> None:
    short = Conditioning(torch.randn(1, 2, 4), pooled_prompt_embeds=torch.randn(1, 3))
    long = Conditioning(
        torch.randn(2, 3, 4),
        pooled_prompt_embeds=torch.randn(2, 3),
        attention_mask=torch.tensor([[1, 1, 1], [1, 0, 0]]).bool(),
    )
    both = Conditioning.cat([short, long])
    assert both.attention_mask is not None and both.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert torch.equal(both.prompt_embeds[0, :2], short.prompt_embeds[0]) and not both.prompt_embeds[0, 2].any()
    alike = Conditioning.cat(
        [Conditioning(torch.randn(1, 3, 4)), Conditioning(long.prompt_embeds, attention_mask=long.attention_mask)]
    )
    assert (
        alike.attention_mask is not None
        and alike.attention_mask.sum(1).tolist() == [3, 3, 1]
        and alike.pooled_prompt_embeds is None
    )
    assert Conditioning.cat([short, short]).attention_mask is None
    half = both.with_guidance(3.5).to(torch.bfloat16)
    assert (
        half.prompt_embeds.dtype == torch.bfloat16
        and half.attention_mask is not None
        and half.attention_mask.dtype == torch.bool
    )


def test_patches_and_tokens_come_back() -> None:
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(unpatchify(patchify(latents)), latents)
    assert torch.equal(unpack_latents(pack_latents(latents), 6), latents)


def test_a_base_with_guidance_built_in_hears_no_negative_prompt() -> None:
    with pytest.raises(MnemonError, match="guidance built in.*leave it out"):
        sample(tiny_base("flux"), PROMPTS[:1], [1], SamplingSettings(3, 1, "blurry"))


def test_a_denoiser_that_edits_images_is_refused() -> None:
    pipeline = tiny_sd3()
    pipeline.register_modules(vae=tiny_flux().vae)
    pipeline.transformer.register_to_config(in_channels=9)
    with pytest.raises(MnemonError, match="9 channels.*text-to-image"):
        type(tiny_base("sd3"))(pipeline, name="inpainting")
