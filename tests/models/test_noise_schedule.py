"""Noise against diffusers' own schedulers and against closed forms."""

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from diffusers.training_utils import compute_snr

from mnemon.models.noise_schedule import noise_schedule
from tests.tiny import NOISE, tiny_sd_base, tiny_sdxl_base

TIMES = torch.tensor([0, 1, 500, 999])


def parts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 4, 8, 8, generator=generator), torch.randn(4, 4, 8, 8, generator=generator)


@pytest.mark.parametrize("scheduler", [PNDMScheduler(**NOISE), EulerDiscreteScheduler(**NOISE)])
def test_noise_is_added_by_the_ddpm_schedule_whatever_the_checkpoint_draws_with(scheduler: object) -> None:
    noise, reference, (clean, added) = noise_schedule(scheduler), DDPMScheduler.from_config(scheduler.config), parts()
    torch.testing.assert_close(noise.add_noise(clean, added, TIMES), reference.add_noise(clean, added, TIMES))
    torch.testing.assert_close(noise.snr(TIMES), compute_snr(reference, TIMES))
    assert torch.equal(noise.target(clean, added, TIMES), added)


def test_velocity_is_the_schedulers() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    clean, added = parts()
    torch.testing.assert_close(
        noise_schedule(scheduler).target(clean, added, TIMES), scheduler.get_velocity(clean, added, TIMES)
    )


def test_v_prediction_reaches_the_base() -> None:
    base = tiny_sd_base(prediction_type="v_prediction")
    clean, added = parts()
    noisy, velocity = base.schedule.add_noise(clean, added, TIMES), base.schedule.target(clean, added, TIMES)
    signal = (base.schedule.snr(TIMES) / (1 + base.schedule.snr(TIMES)))[:, None, None, None]  # ᾱ
    torch.testing.assert_close(signal.sqrt() * noisy - (1 - signal).sqrt() * velocity, clean, atol=1e-4, rtol=1e-4)


def test_flow_goes_straight_from_image_to_noise() -> None:
    noise, (clean, added) = noise_schedule(FlowMatchEulerDiscreteScheduler(shift=3.0)), parts()
    times = torch.tensor([1.0, 40.0, 500.0, 1000.0])
    noisy, sigma = noise.add_noise(clean, added, times), times[:, None, None, None] / 1000
    torch.testing.assert_close(noisy[-1], added[-1])  # σ = 1 at the last timestep
    torch.testing.assert_close(noisy - sigma * noise.target(clean, added, times), clean, atol=1e-5, rtol=1e-5)
    assert noise.snr(times).diff().lt(0).all()


def test_flow_trains_on_the_shifted_schedule() -> None:
    noise = noise_schedule(FlowMatchEulerDiscreteScheduler(shift=3.0))
    sigma = noise.sample_timesteps(4000, torch.Generator().manual_seed(0)) / 1000
    even = sigma / (3 - 2 * sigma)  # unshifted: uniform, mean 1/2, standard error 0.289 / sqrt(4000) = 0.0046
    assert abs(even.mean() - 0.5) < 5 * 0.0046 and even.min() > 0 and even.max() <= 1


def test_timesteps_are_uniform_and_follow_the_generator() -> None:
    base = tiny_sdxl_base()
    drawn = base.schedule.sample_timesteps(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, base.schedule.sample_timesteps(4000, torch.Generator().manual_seed(0)))
    assert drawn.min() >= 0 and drawn.max() <= 999 and drawn.unique().numel() > 900
    # mean 499.5, standard error 288.7 / sqrt(4000) = 4.6
    assert abs(drawn.float().mean() - 499.5) < 5 * 4.6


def test_latents_are_not_clipped_in_sampling_unless_the_checkpoint_says_so() -> None:
    assert not noise_schedule(DDPMScheduler()).sampling_scheduler().config.clip_sample
    assert noise_schedule(DDPMScheduler(clip_sample=True)).sampling_scheduler().config.clip_sample
