"""What a base is trained and sampled with by default."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mnemon.api.opening import method_for
from mnemon.evaluation import EvalSettings
from mnemon.methods import method_from
from mnemon.models import latents
from mnemon.models.profiles import PROFILES, SMALL, profile_of
from mnemon.sampling import SamplingSettings, fitted
from tests.tiny import tiny_sd_base

LARGE = PROFILES["sdxl"]


def described(family: str, name: str = "a/model", side: int = 1024, distilled: bool = False, **scheduler: Any) -> Any:
    guidance = scheduler.pop("guidance_embeds", False)
    denoiser = SimpleNamespace(config={"guidance_embeds": guidance})
    return SimpleNamespace(
        family=family,
        name=name,
        resolution=side,
        distilled=distilled,
        denoiser=denoiser,
        scheduler_config=lambda: scheduler,
    )


@pytest.mark.parametrize(
    ("base", "steps", "guidance"),
    [
        (described("sdxl", timestep_spacing="leading", prediction_type="epsilon"), 30, 5.0),
        (described("sdxl", timestep_spacing="trailing", prediction_type="epsilon"), 4, 1.0),  # Turbo, Lightning
        (described("sdxl", _class_name="LCMScheduler", timestep_spacing="leading"), 4, 1.0),
        (described("sdxl", timestep_spacing="trailing", prediction_type="v_prediction"), 30, 5.0),
        (described("sdxl", timestep_spacing="trailing", rescale_betas_zero_snr=True), 30, 5.0),
        (described("sd", side=512), 30, 7.5),
        (described("sd", side=512, timestep_spacing="trailing"), 4, 1.0),
        (described("z-image", shift=3.0), 8, 1.0),  # Turbo
        (described("z-image", shift=6.0), 30, 5.0),
        (described("flux2-klein", distilled=True), 4, 1.0),
        (described("flux2-klein"), 30, 4.0),
        (described("flux", guidance_embeds=True), 28, 3.5),  # dev
        (described("flux", distilled=True), 4, 1.0),  # schnell
        (described("sd3", "stabilityai/stable-diffusion-3.5-large-turbo"), 4, 1.0),
        (described("sd3", "/models/turbo/stable-diffusion-3.5-medium"), 28, 4.5),
        (described("qwen-image", "Qwen/Qwen-Image"), 30, 4.0),
        (described("flux2", "black-forest-labs/FLUX.2-dev"), 28, 4.0),
    ],
)
def test_bases_distilled_to_few_steps_are_recognised(base: Any, steps: int, guidance: float) -> None:
    profile = profile_of(base)
    assert (profile.num_inference_steps, profile.guidance_scale) == (steps, guidance)


def test_a_small_base_keeps_what_the_methods_and_settings_say() -> None:
    base = tiny_sd_base()
    assert base.profile == SMALL and SMALL.training() == {}
    assert fitted(SamplingSettings(batch_size=16), base) == SamplingSettings(batch_size=16)
    assert EvalSettings.of_base(base) == EvalSettings()
    assert method_for("stamina", None, base) == method_from("stamina")


def test_a_large_base_has_lower_rates_unless_they_are_set() -> None:
    base = tiny_sd_base()
    base.profile = LARGE
    assert method_for("lora", None, base) == method_from("lora", {"learning_rate": 1e-4, "token_lr": 5e-4})
    given = {"rate": 3e-3, "rank": 4}  # a former name
    assert method_for("lora", given, base) == method_from("lora", {**given, "token_lr": 5e-4})
    whole = method_from("lora", {"rank": 4})
    assert method_for(whole, None, base) is whole
    assert fitted(SamplingSettings(batch_size=16), base).batch_size == 4
    base.profile = replace(LARGE, num_inference_steps=4)
    assert EvalSettings.of_base(base).num_inference_steps == 4


def test_the_autoencoder_takes_large_batches_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_sd_base()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = base.encode_images(images), base.decode_latents(base.encode_images(images))
    taken: list[int] = []
    decode = base._vae_decode
    monkeypatch.setattr(base, "_vae_decode", lambda part: taken.append(len(part)) or decode(part))
    monkeypatch.setattr(latents, "PIXELS", 2 * 16 * 16)
    encoded = base.encode_images(images)
    torch.testing.assert_close(encoded, whole[0])
    torch.testing.assert_close(base.decode_latents(encoded), whole[1])
    assert taken == [2, 2, 1]
