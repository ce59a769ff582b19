"""Checkpoints in one file of the original layout: tiny random ones with their configs beside them, and the published
sizes without weights."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from mnemon.api.opening import base_named
from mnemon.errors import MnemonError
from mnemon.export.checkpoint import OPEN_CLIP_PREFIX, _open_clip, checkpoint_tensors
from mnemon.export.naming import naming_of
from mnemon.models import load_base, single_file
from mnemon.models.base import Base
from mnemon.models.sd import StableDiffusion
from mnemon.models.single_file import ENCODERS
from mnemon.sampling import SamplingSettings, sample
from tests.tiny import tiny_sd, tiny_sd_base, tiny_sdxl_base, tiny_text_config, tiny_tokenizer

PROMPTS = ["a red dog", "a cat on the beach"]


def written(base: Base) -> dict[str, torch.Tensor]:
    selection: Any = SimpleNamespace(base=base, naming=naming_of(base), deltas={})
    return checkpoint_tensors(selection, torch.float32)


def tiny_sd2(prediction_type: str = "v_prediction") -> StableDiffusion:
    """With a text encoder of OpenCLIP's kind, whose projection is not in the pipeline."""
    pipeline = tiny_sd(prediction_type=prediction_type)
    torch.manual_seed(7)
    tokenizer = tiny_tokenizer(pad="!")
    config = {**tiny_text_config(tokenizer, 32, 2).to_dict(), "hidden_act": "gelu"}
    pipeline.register_modules(text_encoder=CLIPTextModel(CLIPTextConfig(**config)), tokenizer=tokenizer)
    return StableDiffusion(pipeline, name="tiny")


def written_sd2(base: StableDiffusion) -> dict[str, torch.Tensor]:
    encoder = base.pipeline().text_encoder
    projecting = CLIPTextModelWithProjection(encoder.config)
    text = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    projecting.load_state_dict({f"text_model.{key}": value for key, value in text.items()}, strict=False)
    own = {key.replace(OPEN_CLIP_PREFIX, "cond_stage_model.model."): one for key, one in _open_clip(projecting).items()}
    unet = {key: one for key, one in written(tiny_sd_base()).items() if not key.startswith("cond_stage")}
    return {**unet, **own, "cond_stage_model.model.logit_scale": torch.ones(())}


CASES = {
    "sd1": (tiny_sd_base, written),
    "sdxl": (tiny_sdxl_base, written),
    "sd2": (tiny_sd2, written_sd2),
}


def saved(folder: Path, kind: str, change: dict[str, torch.Tensor] | None = None, **metadata: str) -> tuple[Path, Base]:
    """A checkpoint of that kind in `folder`, its configs and tokenizers beside it, and the base that it is of."""
    build, write = CASES[kind]
    base = build()
    base.pipeline().save_pretrained(folder / "mine")
    for file in (folder / "mine").rglob("*.safetensors"):
        file.unlink()
    tensors = {key: tensor.contiguous().clone() for key, tensor in {**write(base), **(change or {})}.items()}
    save_file(tensors, folder / "mine.safetensors", metadata)
    return folder / "mine.safetensors", base


@pytest.mark.parametrize("kind", CASES)
def test_a_checkpoint_is_the_base_it_was_written_from(tmp_path: Path, kind: str) -> None:
    file, base = saved(tmp_path, kind)
    again = load_base(str(file))
    assert again.family == base.family and again.name == str(file)
    for part in base.components:
        mine, theirs = (getattr(one.pipeline(), part).state_dict() for one in (again, base))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in theirs)
    timesteps = torch.arange(1000)
    for mine, theirs in zip(*(one.schedule.alpha_sigma(timesteps) for one in (again, base)), strict=True):
        assert torch.equal(mine, theirs)
    assert again.schedule.prediction_type == base.schedule.prediction_type
    settings = SamplingSettings(3.0, 3)
    torch.testing.assert_close(sample(again, PROMPTS, [1, 2], settings), sample(base, PROMPTS, [1, 2], settings))


def test_half_precision_files_names_and_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = saved(tmp_path, "sd1")
    first = load_base(str(file), dtype=torch.bfloat16)
    assert first.dtype == torch.bfloat16 and len(first.fingerprint) == 64
    monkeypatch.chdir(tmp_path)
    assert base_named("mine.safetensors").name == str(file), "a library is opened from anywhere"
    (tmp_path / "mine").rename(tmp_path / "renamed")
    assert load_base(str(file.rename(tmp_path / "renamed.safetensors"))).fingerprint == first.fingerprint


def test_older_layouts_and_what_belongs_to_training_are_read_without_a_word(tmp_path: Path) -> None:
    more = {"model_ema.decay": torch.ones(1), "betas": torch.ones(9), "alphas_cumprod": torch.ones(9)}
    ids = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(20)[None]}
    file, base = saved(tmp_path, "sd1", {**more, **ids})
    assert torch.equal(load_base(str(file)).encoders[0].table.weight, base.encoders[0].table.weight)


@pytest.mark.parametrize(
    "key", ["model.diffusion_model.extra.weight", "control_model.x", "cond_stage_model.transformer.text_model.new.bias"]
)
def test_tensors_that_are_not_read_are_said(tmp_path: Path, key: str) -> None:
    file, _ = saved(tmp_path, "sd1", {key: torch.ones(3)})
    with pytest.warns(UserWarning, match=f"1 tensors of '.*mine.safetensors' are not read, such as '{key}'"):
        load_base(str(file))


@pytest.mark.parametrize(
    ("asked", "change", "metadata", "expected"),
    [
        ("", {}, {}, "epsilon"),
        (":v_prediction", {}, {}, "v_prediction"),
        ("", {"v_pred": torch.ones(0)}, {}, "v_prediction"),
        ("", {}, {"modelspec.prediction_type": "v"}, "v_prediction"),
        (":epsilon", {"v_pred": torch.ones(0)}, {}, "epsilon"),
        ("", {"v_pred": torch.ones(0), "ztsnr": torch.ones(0)}, {}, "v_prediction"),
    ],
)
def test_what_is_predicted_is_as_asked_or_as_the_file_says(
    tmp_path: Path, asked: str, change: dict[str, torch.Tensor], metadata: dict[str, str], expected: str
) -> None:
    file, _ = saved(tmp_path, "sdxl", change, **metadata)
    base = load_base(f"{file}{asked}")
    config = base.schedule.sampling_scheduler().config
    assert config.prediction_type == expected and config.rescale_betas_zero_snr == ("ztsnr" in change)


BAD = {
    "a LoRA": ({"lora_unet_mid.lora_down.weight": torch.ones(1)}, "a LoRA.*mnemon import"),
    "EDM": ({"edm_mean": torch.ones(4)}, "EDM"),
    "FLUX": ({"model.diffusion_model.double_blocks.0.img_attn.norm": torch.ones(1)}, "transformer.*diffusers folder"),
    "the refiner": ({"conditioner.embedders.0.model.ln_final.bias": torch.ones(1)}, "refiner"),
    "fp8": ({"scaled_fp8": torch.ones(1)}, "fp8"),
    "another size": ({"first_stage_model.encoder.conv_in.weight": torch.ones(2)}, r"shape \(2,\).*mine'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_such_checkpoint_is_said_by_its_name(tmp_path: Path, case: str) -> None:
    change, said = BAD[case]
    file, _ = saved(tmp_path, "sd1", change)
    with pytest.raises(MnemonError, match=said):
        load_base(str(file))


@pytest.mark.parametrize(
    ("start", "said"), [("first_stage_model.", "whole checkpoint"), ("model.diffusion_model.out.", "out")]
)
def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path, start: str, said: str) -> None:
    base = tiny_sd_base()
    base.pipeline().save_pretrained(tmp_path / "mine")
    save_file(
        {key: one for key, one in written(base).items() if not key.startswith(start)}, tmp_path / "mine.safetensors"
    )
    with pytest.raises(MnemonError, match=said):
        load_base(str(tmp_path / "mine.safetensors"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, said in (("a.ckpt", "pickles"), ("b.safetensors", "damaged"), ("c.txt", "no safetensors file")):
        (tmp_path / name).write_bytes(b"text")
        with pytest.raises(MnemonError, match=said):
            load_base(str(tmp_path / name))


SIZES = {
    "sd1": (859_520_964, 768, "epsilon"),
    "sd2": (865_910_724, 1024, "v_prediction"),
    "sdxl": (2_567_463_684, 2048, "epsilon"),
}
"""Parameters of the published U-Nets (860M, 866M and 2.6B on their model cards), and the width of their text."""


@pytest.mark.parametrize("kind", SIZES)
def test_the_published_sizes_fit_the_shipped_configs(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device: every name of the original layout finds its place, at the published shapes."""
    parameters, width, prediction = SIZES[kind]
    parts, _ = single_file._configs(kind, None)
    tensors = original_names(kind, parts)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda module, state, **_: module)
    for part, origin in parts.items():
        if part != "scheduler":
            module = single_file._module(tmp_path / "x.safetensors", kind, part, origin, tensors, torch.float16)
            if part == "unet":
                assert sum(one.numel() for one in module.parameters()) == parameters
                assert module.config.cross_attention_dim == width
    assert single_file._prediction(tmp_path, kind, {}, {}, prediction, None) == prediction


def original_names(kind: str, parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of the published shapes on the meta device, under the original names."""
    with torch.device("meta"):
        modules = {}
        for part, (library, name, config) in parts.items():
            if part != "scheduler":
                cls = getattr(__import__(library), name)
                modules[part] = cls.from_config(config) if library == "diffusers" else cls(cls.config_class(**config))
    from mnemon.export.checkpoint import _clip, _vae, original_unet

    tensors = {f"model.diffusion_model.{key}": one for key, one in original_unet(modules["unet"]).items()}
    tensors |= _vae(modules["vae"])
    for part, prefix in ENCODERS[kind].items():
        if prefix.endswith(".model."):
            with torch.device("meta"):
                model = CLIPTextModelWithProjection(modules[part].config)
            own = {key.replace(OPEN_CLIP_PREFIX, prefix): one for key, one in _open_clip(model).items()}
        else:
            own = _clip(modules[part], f"{prefix}text_model.")
        tensors |= own
    return tensors


def test_stable_diffusion_2_needs_to_be_told_what_it_predicts_and_a_tokenizer_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MnemonError, match="name it 'x.safetensors:epsilon' or 'x.safetensors:v_prediction'"):
        single_file._prediction(Path("x.safetensors"), "sd2", {}, {}, "", None)
    modules = {"text_encoder": SimpleNamespace(config=SimpleNamespace(vocab_size=10**6))}
    with pytest.raises(MnemonError, match=f"copy the folder 'tokenizer'.*'{tmp_path}/tokenizer'"):
        single_file._tokenizers(tmp_path / "x.safetensors", "sd2", None, modules)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tokenizer,) = single_file._tokenizers(tmp_path / "x.safetensors", "sd2", None, modules).values()
    assert tokenizer.pad_token == "!" and tokenizer.model_max_length == 77
    modules["text_encoder"].config.vocab_size = 9
    with pytest.raises(MnemonError, match="embeds 9"):
        single_file._tokenizers(tmp_path / "x.safetensors", "sd2", None, modules)


def test_shipped_configs_are_complete() -> None:
    for kind, encoders in ENCODERS.items():
        parts, options = single_file._configs(kind, None)
        assert set(parts) == {"unet", "vae", "scheduler", *encoders} and json.dumps(options)
