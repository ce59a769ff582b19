"""Timesteps of sampling: exactly n for n steps, from the noise down, and steps from one to the next."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from mnemon.models.noise_schedule import Flow, noise_schedule
from mnemon.models.schedulers import DDIM, SPACINGS, DPMSolverMultistep
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.sampling import SamplingSettings, sample
from tests.tiny import NOISE, tiny_sdxl

COUNTS = range(1, 1001)


@pytest.mark.parametrize("offset", [0, 1, 7])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", [DDIM, DPMSolverMultistep])
def test_every_count_of_steps_has_as_many_timesteps_from_the_noise_on(kind: type, spacing: str, offset: int) -> None:
    scheduler = kind(timestep_spacing=spacing, steps_offset=offset)
    for steps in COUNTS:
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        assert len(timesteps) == steps and timesteps[-1] >= 0 and timesteps[0] <= 999, steps
        assert (timesteps.diff() < 0).all(), steps
        assert timesteps[0] >= 999 - 3 * (1000 // steps), f"{steps} steps begin at {timesteps[0]}"
    assert scheduler.timesteps.tolist() == list(range(999, -1, -1))


@pytest.mark.parametrize("count", [500, 250, 37])
def test_other_numbers_of_training_timesteps_have_them_too(count: int) -> None:
    for spacing in SPACINGS:
        scheduler = DDIM(num_train_timesteps=count, timestep_spacing=spacing, steps_offset=1)
        for steps in range(1, count + 1):
            scheduler.set_timesteps(steps)
            assert len(scheduler.timesteps) == steps and (scheduler.timesteps.diff() < 0).all()
            assert 0 <= scheduler.timesteps[-1] <= scheduler.timesteps[0] < count


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("ours", [DDIM, DPMSolverMultistep])
def test_usual_counts_keep_the_timesteps_of_diffusers(ours: type, spacing: str) -> None:
    theirs = DDIMScheduler if ours is DDIM else DPMSolverMultistepScheduler
    pair = [kind(timestep_spacing=spacing, steps_offset=1) for kind in (ours, theirs)]
    for steps in (2, 4, 8, 20, 25, 28, 30, 40, 50, 100):
        mine, other = (scheduler.set_timesteps(steps) or scheduler.timesteps for scheduler in pair)
        assert torch.equal(mine, other) or (spacing, steps) == ("leading", 100) and mine[0] > other[0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [3, 20, 30, 61, 334])
def test_a_step_goes_to_the_lists_next_timestep(steps: int, spacing: str, prediction_type: str) -> None:
    """A denoiser that knows the image and the noise leads along x_t = α_t x + σ_t ε, to the image at the end."""
    schedule = noise_schedule(DDIMScheduler(timestep_spacing=spacing, steps_offset=1, prediction_type=prediction_type))
    scheduler = schedule.sampling_scheduler()
    scheduler.set_timesteps(steps)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = schedule.add_noise(clean, noise, scheduler.timesteps[:1])
    for now, following in zip(scheduler.timesteps, [*scheduler.timesteps[1:], None], strict=True):
        latents = scheduler.step(schedule.target(clean, noise, now[None]), now, latents).prev_sample
        expected = clean if following is None else schedule.add_noise(clean, noise, following[None])
        torch.testing.assert_close(latents, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_counts_that_divide_the_schedule_keep_the_bits_of_diffusers(spacing: str, steps: int) -> None:
    config = {**NOISE, "timestep_spacing": spacing, "clip_sample": False, "prediction_type": "v_prediction"}
    latents = []
    for scheduler in (DDIM(**config), DDIMScheduler(**config)):
        scheduler.set_timesteps(steps)
        current = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        for timestep in scheduler.timesteps:
            current = scheduler.step(current.tanh(), timestep, current).prev_sample
        latents.append(current)
    assert torch.equal(*latents)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' own scheduler
@pytest.mark.parametrize(("spacing", "steps"), [("trailing", 3), ("trailing", 30), ("leading", 7), ("linspace", 4)])
def test_images_are_those_of_a_scheduler_that_steps_along_the_list(spacing: str, steps: int) -> None:
    pipeline = tiny_sdxl()
    pipeline.scheduler = EulerDiscreteScheduler(**NOISE, timestep_spacing=spacing)
    base = StableDiffusionXL(pipeline, name="tiny")
    start = torch.randn(1, *base.latent_shape(), generator=torch.Generator().manual_seed(3))
    expected = pipeline("a red dog", num_inference_steps=steps, latents=start, guidance_scale=3.0, output_type="pt")
    drawn = sample(base, ["a red dog"], [3], SamplingSettings(3.0, steps))
    torch.testing.assert_close(drawn, expected.images, atol=1e-3, rtol=0)


@pytest.mark.parametrize("linear_sigmas", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {"shift": 3.0},
        {"shift": 1.0, "use_karras_sigmas": True},
        {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift_terminal": 0.02},
    ],
)
def test_flows_have_as_many_timesteps_from_the_noise_on(config: dict, linear_sigmas: bool) -> None:
    flow = Flow(FlowMatchEulerDiscreteScheduler(**config).config, lambda steps: 1.15, linear_sigmas)
    scheduler = flow.sampling_scheduler()
    for steps in COUNTS:
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        assert len(timesteps) == steps and timesteps[0] == 1000 and timesteps[-1] > 0, steps
        assert (timesteps.diff() < 0).all() and scheduler.sigmas[-1] == 0, steps
