"""Configs of bases: what is understood gives the images of diffusers, what is not is refused by its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, EulerDiscreteScheduler, LCMScheduler

from mnemon.errors import MnemonError
from mnemon.models import load_base
from mnemon.models.base import Base
from mnemon.models.latents import latent_shift_and_scale
from mnemon.models.noise_schedule import noise_schedule
from mnemon.models.sd import StableDiffusion
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.sampling import SamplingSettings, sample
from mnemon.training.loss import denoising_loss
from tests.tiny import NOISE, tiny_sd, tiny_sd_base, tiny_sdxl
from tests.tiny_transformers import tiny_flux

FILES = {"scheduler": "scheduler/scheduler_config.json", "vae": "vae/config.json"}
STATISTICS = {"latents_mean": [-1.65, 1.88, -1.38, 2.51], "latents_std": [8.49, 5.90, 6.55, 5.23]}
EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
PROMPT = "a red dog"


@pytest.fixture(scope="module", name="folders")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    for name, build in {"sd": tiny_sd, "sdxl": tiny_sdxl, "flux": tiny_flux}.items():
        build().save_pretrained(root / name)
    return {name: root / name for name in ("sd", "sdxl", "flux")}


def edited(folder: Path, to: Path, part: str, change: dict[str, Any]) -> Path:
    """A copy of `folder` whose files are links, but for one config."""
    for path in folder.rglob("*"):
        if path.is_file():
            (to / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(folder)).symlink_to(path)
    config = to / FILES[part]
    value = {**json.loads(config.read_text()), **change}
    config.unlink()
    config.write_text(json.dumps({key: one for key, one in value.items() if one != "removed"}))
    if part == "scheduler":
        index = json.loads((to / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", value["_class_name"]]
        (to / "model_index.json").unlink()
        (to / "model_index.json").write_text(json.dumps(index))
    return to


def images_of_diffusers(folder: Path, base: Base, steps: int) -> torch.Tensor:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    start = torch.randn(1, *base.latent_shape(), generator=torch.Generator().manual_seed(3))
    options = {"num_inference_steps": steps, "guidance_scale": 3.0, "latents": start}
    return pipeline(PROMPT, output_type="pt", **options).images


UNDERSTOOD = {
    "latents' statistics": ("sdxl", "vae", {**STATISTICS, "scaling_factor": 0.5}),
    "zero terminal SNR": (
        "sd",
        "scheduler",
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ),
    "zero terminal SNR, the image": (
        "sd",
        "scheduler",
        {"rescale_betas_zero_snr": True, "prediction_type": "sample", "timestep_spacing": "trailing"},
    ),
    "Euler's own spacing": ("sdxl", "scheduler", {"timestep_spacing": "removed"}),
    "offset": ("sdxl", "scheduler", {"steps_offset": 3}),
    "trained betas": ("sd", "scheduler", {"trained_betas": torch.linspace(1e-4, 0.03, 1000).tolist()}),
    "cosine": ("sd", "scheduler", {"beta_schedule": "squaredcos_cap_v2"}),
    "its own sampler's": ("sdxl", "scheduler", {"interpolation_type": "linear", "final_sigmas_type": "zero"}),
    "fewer timesteps": ("sd", "scheduler", {"num_train_timesteps": 500}),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' own scheduler
@pytest.mark.parametrize("case", UNDERSTOOD)
def test_what_is_understood_gives_the_images_of_diffusers(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    family, part, change = UNDERSTOOD[case]
    folder = edited(folders[family], tmp_path / "base", part, change)
    base = load_base(str(folder))
    drawn = sample(base, [PROMPT], [3], SamplingSettings(3.0, 4))
    assert drawn.std() > 0.01
    torch.testing.assert_close(drawn, images_of_diffusers(folder, base, 4), atol=1e-3, rtol=0)
    images = torch.rand(2, 3, base.resolution, base.resolution)
    latents = base.encode_images(images)
    z = base.vae.encode(images * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(base.decode_latents(latents), (base.vae.decode(z).sample / 2 + 0.5).clamp(0, 1))
    condition, timesteps = base.encode_prompts([PROMPT] * 2), torch.tensor([3, base.schedule.num_train_timesteps - 1])
    losses = denoising_loss(base, latents, torch.randn_like(latents), timesteps, condition, snr_gamma=5.0)
    assert losses.isfinite().all()


def test_an_autoencoders_shift_and_statistics_are_taken_off_and_put_back() -> None:
    pipeline = tiny_sdxl()
    z = pipeline.vae.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mode()
    for change in ({"shift_factor": 0.25}, STATISTICS, {**STATISTICS, "shift_factor": 0.25}):
        pipeline = tiny_sdxl()
        pipeline.vae.register_to_config(**change)
        base = StableDiffusionXL(pipeline, name="tiny")
        mean, std = (torch.tensor(change.get(key, [one] * 4))[:, None, None] for key, one in
                     (("latents_mean", 0.0), ("latents_std", 1.0)))  # fmt: skip
        expected = (z - change.get("shift_factor", 0) - mean) / std * pipeline.vae.config.scaling_factor
        torch.testing.assert_close(base.encode_images(torch.full((1, 3, 16, 16), 0.5)), expected)
        shift, scale = latent_shift_and_scale(pipeline.vae)
        torch.testing.assert_close(expected / scale + shift, z, atol=1e-5, rtol=0)


REFUSED = {
    "EDM": ("sdxl", "scheduler", EDM, "EDMDPMSolverMultistepScheduler"),
    "EDM by Euler": ("sdxl", "scheduler", {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
    "inverse": ("sd", "scheduler", {"_class_name": "DDIMInverseScheduler"}, "DDIMInverseScheduler"),
    "video": ("sd", "scheduler", {"_class_name": "CogVideoXDDIMScheduler"}, "CogVideoXDDIMScheduler"),
    "consistency": ("sd", "scheduler", {"_class_name": "CMStochasticIterativeScheduler"}, "CMStochasticIterative"),
    "zero SNR, noise": ("sd", "scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr.*v_prediction"),
    "prediction": ("sd", "scheduler", {"prediction_type": "riddle"}, "prediction_type = 'riddle'.*'v_prediction'"),
    "flow sigmas": (
        "sd",
        "scheduler",
        {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        "flow",
    ),
    "continuous": ("sdxl", "scheduler", {"timestep_type": "continuous"}, "timestep_type = 'continuous'"),
    "spacing": ("sd", "scheduler", {"timestep_spacing": "wild"}, "timestep_spacing = 'wild'.*'leading'"),
    "offset": ("sdxl", "scheduler", {"steps_offset": -3}, "steps_offset = -3"),
    "betas": ("sd", "scheduler", {"trained_betas": [0.1] * 7}, "7 trained_betas for 1000"),
    "betas of text": ("sd", "scheduler", {"trained_betas": [0.1] * 999 + ["a"]}, "trained_betas that are no list"),
    "betas that are none": ("sd", "scheduler", {"trained_betas": []}, "trained_betas that are no list"),
    "a beta below 0": ("sd", "scheduler", {"beta_start": -0.1}, "json' has beta_start = -0.1, where a number"),
    "a beta above 1": ("sd", "scheduler", {"beta_end": 2.0}, "json' has beta_end = 2.0, where a number"),
    "a beta of text": ("sd", "scheduler", {"beta_start": "0.001"}, "json' has beta_start = '0.001', where"),
    "a beta of NaN": ("sd", "scheduler", {"beta_start": float("nan")}, "json' has beta_start = nan, where"),
    "no timesteps": ("sd", "scheduler", {"num_train_timesteps": 0}, "json' has num_train_timesteps = 0: set it"),
    "timesteps of text": ("sdxl", "scheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps = '1000': set"),
    "part of a timestep": ("sd", "scheduler", {"num_train_timesteps": 9.5}, "num_train_timesteps = 9.5: set it"),
    "schedule": (
        "sd",
        "scheduler",
        {"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"},
        "beta_schedule = 'sigmoid'",
    ),
    "half the statistics": ("sdxl", "vae", {"latents_mean": [0.0] * 4}, "latents_mean.*latents_std"),
    "too few statistics": ("sdxl", "vae", {key: [1.0] for key in STATISTICS}, "4 channels"),
    "no scale": ("sd", "vae", {"scaling_factor": 0.0}, "scaling_factor"),
    "scale of text": ("sd", "vae", {"scaling_factor": "0.18"}, "scaling_factor = '0.18'"),
    "null for a scale": ("sd", "vae", {"scaling_factor": None}, "scaling_factor = None"),
    "no deviation": ("sd", "vae", {**STATISTICS, "latents_std": [1.0, 1.0, 0.0, 1.0]}, "latents_std"),
    "stochastic flow": ("flux", "scheduler", {"stochastic_sampling": True}, "stochastic_sampling = True"),
    "inverted flow": ("flux", "scheduler", {"invert_sigmas": True}, "invert_sigmas = True"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_by_its_name(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    family, part, change, said = REFUSED[case]
    folder = edited(folders[family], tmp_path / "base", part, change)
    with pytest.raises(MnemonError, match=said) as error:
        load_base(str(folder))
    assert FILES[part] in str(error.value) and str(folder) in str(error.value)


def test_a_field_that_diffusers_learns_later_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(DDIMScheduler):
        def __init__(self, tilt: float = 0.0, **others: Any) -> None:
            super().__init__(**others)
            self.register_to_config(tilt=tilt)

    assert noise_schedule(Newer()).num_train_timesteps == 1000
    with pytest.raises(MnemonError, match=r"tilt = 0.5, which mnemon does not understand.*set it to 0.0"):
        noise_schedule(Newer(tilt=0.5))


def test_a_scheduler_that_no_library_has_and_one_that_the_index_calls_otherwise_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = edited(folders["sd"], tmp_path / "new", "scheduler", {"_class_name": "TomorrowScheduler"})
    with pytest.raises(MnemonError, match="asks for TomorrowScheduler"):
        load_base(str(folder))
    folder = edited(folders["sdxl"], tmp_path / "edm", "scheduler", EDM)
    (folder / "model_index.json").write_text((folders["sdxl"] / "model_index.json").read_text())
    with pytest.raises(MnemonError, match="asks for EDMDPMSolverMultistepScheduler"):
        load_base(str(folder))


@pytest.mark.parametrize(("family", "part"), [("sd", "scheduler"), ("sdxl", "vae"), ("flux", "scheduler")])
def test_a_field_that_nobody_knows_is_ignored_with_a_word(
    folders: dict[str, Path], tmp_path: Path, family: str, part: str
) -> None:
    folder = edited(folders[family], tmp_path / "base", part, {"glow": 3, "_note": "mine"})
    with pytest.warns(UserWarning, match=rf"{FILES[part]}' has glow = 3.*ignored") as said:
        load_base(str(folder))
    assert len([one for one in said if "has" in str(one.message)]) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("time_cond_proj_dim", 32), ("num_class_embeds", 10), ("encoder_hid_dim_type", "text_proj"), ("out_channels", 8)],
)
def test_a_unet_of_other_inputs_or_outputs_is_refused(field: str, value: object) -> None:
    pipeline = tiny_sd()
    pipeline.unet.register_to_config(**{field: value})
    with pytest.raises(MnemonError, match=f"mine/unet/config.json' has {field} = {value!r}"):
        StableDiffusion(pipeline, name="mine")


def test_another_autoencoder_is_refused(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    pipeline = tiny_sd()
    pipeline.register_modules(
        vae=AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    )
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(MnemonError, match=r"vae/config.json' asks for AutoencoderTiny.*AutoencoderKL"):
        load_base(str(tmp_path))


def test_what_a_config_leaves_out_is_its_own_schedulers_default() -> None:
    schedule = noise_schedule(LCMScheduler())
    published = DDPMScheduler(**{key: NOISE[key] for key in ("beta_start", "beta_end", "beta_schedule")})
    expected = published.alphas_cumprod[[0, 500, 999]].sqrt()
    torch.testing.assert_close(schedule.alpha_sigma(torch.tensor([0, 500, 999]))[0], expected)
    assert noise_schedule(EulerDiscreteScheduler()).sampling_scheduler().config.timestep_spacing == "linspace"


def test_the_second_sampler_draws_nothing_at_random_whatever_the_checkpoints_own_does() -> None:
    from diffusers import DPMSolverMultistepScheduler

    base = tiny_sd_base()
    sde = DPMSolverMultistepScheduler(**NOISE, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    base.schedule = noise_schedule(sde)
    settings = SamplingSettings(3.0, 4, scheduler="DPMSolverMultistep")
    first, second = (sample(base, [PROMPT], [3], settings) for _ in range(2))
    assert torch.equal(first, second) and first.std() > 0.01
