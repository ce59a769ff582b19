"""Drawing: the numbers of diffusers' own pipelines, and images that depend on their own prompt and seed alone."""

from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.sampling import SamplingSettings, sample
from tests.tiny import tiny_sd, tiny_sd_base, tiny_sdxl, tiny_sdxl_base

BASES = {"sd": tiny_sd_base, "sdxl": tiny_sdxl_base}
PROMPTS = ["a photo of a dog", "a red mug on the beach", "a photo of a dog"]
SEEDS = [3, 4, 5]


@pytest.fixture(params=BASES, name="base")
def _base(request: pytest.FixtureRequest) -> Base:
    return BASES[request.param]()


def images_of(pipeline: object, base: Base, negative_prompt: str | None, guidance_scale: float) -> torch.Tensor:
    pipeline.scheduler = base.schedule.sampling_scheduler()
    result = pipeline(
        PROMPTS,
        negative_prompt=None if negative_prompt is None else [negative_prompt] * len(PROMPTS),
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
    )
    return result.images


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("negative_prompt", "guidance_scale"), [("", 5.0), ("a blue car", 3.0), ("", 1.0)])
def test_images_are_those_of_the_stable_diffusion_pipeline(
    prediction_type: str, negative_prompt: str, guidance_scale: float
) -> None:
    base = tiny_sd_base(prediction_type=prediction_type)
    expected = images_of(tiny_sd(prediction_type=prediction_type), base, negative_prompt, guidance_scale)
    drawn = sample(base, PROMPTS, SEEDS, SamplingSettings(guidance_scale, 4, negative_prompt))
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("negative_prompt", "guidance_scale"), [("", 5.0), ("a blue car", 3.0), ("", 1.0)])
def test_images_are_those_of_the_sdxl_pipeline(negative_prompt: str, guidance_scale: float) -> None:
    base = tiny_sdxl_base()
    expected = images_of(tiny_sdxl(), base, negative_prompt or None, guidance_scale)
    drawn = sample(base, PROMPTS, SEEDS, SamplingSettings(guidance_scale, 4, negative_prompt))
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=0)


def test_dpm_solver_gives_the_images_of_the_pipeline() -> None:
    base, pipeline = tiny_sd_base(), tiny_sd()
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    options = {"num_inference_steps": 6, "guidance_scale": 5.0, "negative_prompt": ["a blue car"] * 3}
    expected = pipeline(PROMPTS, generator=generators, output_type="pt", **options).images
    settings = SamplingSettings(5.0, 6, "a blue car", scheduler="DPMSolverMultistep")
    drawn = sample(base, PROMPTS, SEEDS, settings)
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(drawn, sample(base, PROMPTS, SEEDS, replace(settings, scheduler="DDIM")), atol=1e-3)


def test_a_image_does_not_depend_on_its_batch(base: Base) -> None:
    together = sample(base, PROMPTS, SEEDS, SamplingSettings(4, 3))
    in_pairs = sample(base, PROMPTS, SEEDS, SamplingSettings(4, 3, batch_size=2))
    turned = sample(base, PROMPTS[::-1], SEEDS[::-1], SamplingSettings(4, 3)).flip(0)
    torch.testing.assert_close(together, in_pairs, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[2]), "one prompt, two seeds"
    assert together.shape == (3, 3, 16, 16) and together.min() >= 0 and together.max() <= 1


def test_the_same_call_gives_the_same_bits(base: Base) -> None:
    first, second = (sample(base, PROMPTS, SEEDS, SamplingSettings(4, 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_every_distinct_prompt_is_encoded_once_and_guidance_one_hears_no_negative(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    encode = base.encode_prompts
    monkeypatch.setattr(base, "encode_prompts", lambda prompts: heard.extend(prompts) or encode(prompts))
    rows: list[int] = []
    predict = base.predict
    monkeypatch.setattr(base, "predict", lambda x, t, c: rows.append(len(x)) or predict(x, t, c))
    sample(base, PROMPTS * 2, range(6), SamplingSettings(4, 2, "grass", batch_size=4))
    assert sorted(heard) == sorted([*set(PROMPTS), "grass"]) and rows == [8, 8, 4, 4]
    heard.clear()
    rows.clear()
    sample(base, PROMPTS, SEEDS, SamplingSettings(1, 2, "grass"))
    assert sorted(heard) == sorted(set(PROMPTS)) and rows == [3, 3]


def test_progress_counts_every_step_of_every_batch(base: Base) -> None:
    seen: list[tuple[int, int]] = []
    settings = SamplingSettings(1, 2, batch_size=2)
    sample(base, PROMPTS, SEEDS, settings, on_step=lambda *counts: seen.append(counts))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_prompts_give_no_images(base: Base) -> None:
    assert sample(base, [], [], SamplingSettings(4, 2)).shape == (0, 3, 16, 16)


def test_bad_requests_are_refused(base: Base) -> None:
    with pytest.raises(MnemonError, match="2 prompts came with 1 seeds"):
        sample(base, PROMPTS[:2], [1], SamplingSettings(4, 2))
    for num_inference_steps in (0, 1001):
        with pytest.raises(MnemonError, match=f"{num_inference_steps} denoising steps.*1 to 1000"):
            sample(base, PROMPTS, SEEDS, SamplingSettings(4, num_inference_steps))
    with pytest.raises(MnemonError, match="batch of 0"):
        sample(base, PROMPTS, SEEDS, SamplingSettings(4, 2, batch_size=0))
    with pytest.raises(MnemonError, match="not sampled with 'Euler': choose from DDIM, DPMSolverMultistep"):
        sample(base, PROMPTS, SEEDS, SamplingSettings(4, 2, scheduler="Euler"))
    with pytest.raises(MnemonError, match="<rex>"):
        sample(base, ["a photo of <rex>"], [1], SamplingSettings(4, 2))


@pytest.mark.parametrize("part", ["denoiser", "vae"])
def test_images_that_are_no_numbers_are_refused_rather_than_black(part: str) -> None:
    base = tiny_sd_base()
    layer = base.denoiser.conv_in if part == "denoiser" else base.vae.decoder.conv_in
    layer.weight.data.fill_(torch.nan)
    with pytest.raises(MnemonError, match="not finite"):
        sample(base, ["a photo"], [3], SamplingSettings(3.0, 2))
