import pytest
import torch

from mnemon.training import denoising_loss
from tests.tiny import tiny_sd_base

TIMESTEPS = torch.tensor([1, 100, 400, 700, 999])


@pytest.mark.parametrize(
    ("prediction", "divided_by"), [("epsilon", lambda snr: snr), ("v_prediction", lambda snr: snr + 1)]
)
def test_min_snr_weights_are_those_of_the_paper(prediction: str, divided_by) -> None:
    """Hang et al., arXiv 2303.09556, section 3.4; and min(SNR, gamma) itself for the clean image."""
    base = tiny_sd_base(prediction_type=prediction)
    snr = base.schedule.snr(TIMESTEPS)
    assert snr.min() < 5 < snr.max()
    torch.testing.assert_close(
        base.schedule.min_snr_weights(TIMESTEPS, 5.0), snr.clamp(max=5.0) / divided_by(snr), rtol=1e-3, atol=0
    )


def test_min_snr_weights_of_a_base_that_predicts_the_clean_image() -> None:
    base = tiny_sd_base(prediction_type="sample")
    torch.testing.assert_close(
        base.schedule.min_snr_weights(TIMESTEPS, 5.0), base.schedule.snr(TIMESTEPS).clamp(max=5.0)
    )


def test_the_loss_is_the_mean_squared_error_of_each_image() -> None:
    base = tiny_sd_base(prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, *base.latent_shape(), generator=generator)
    condition = base.encode_prompts(["a dog"] * 5)
    said = base.predict(base.schedule.add_noise(latents, noise, TIMESTEPS), TIMESTEPS, condition)
    error = (said - base.schedule.target(latents, noise, TIMESTEPS)).square().mean(dim=(1, 2, 3))
    plain = denoising_loss(base, latents, noise, TIMESTEPS, condition)
    torch.testing.assert_close(plain, error)
    weighted = denoising_loss(base, latents, noise, TIMESTEPS, condition, snr_gamma=5.0)
    torch.testing.assert_close(weighted, error * base.schedule.min_snr_weights(TIMESTEPS, 5.0))
