"""Opening bases from disk, and refusing what cannot be opened with a word on what to do."""

import json
from pathlib import Path

import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.models import FAMILIES, load_base
from tests.tiny import tiny_sd, tiny_sdxl


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    tiny_sd().save_pretrained(folder / "sd")
    tiny_sdxl().save_pretrained(folder / "sdxl")
    return folder


def copy(folder: Path, to: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize(("family", "pipeline"), [("sd", tiny_sd), ("sdxl", tiny_sdxl)])
def test_a_saved_pipeline_opens_as_what_it_was(saved: Path, family: str, pipeline: object) -> None:
    base = load_base(str(saved / family))
    fresh = FAMILIES[family](pipeline(), name="fresh")
    assert base.family == family and base.name == str(saved / family) and base.resolution == 16
    condition, expected = base.encode_prompts(["a photo of a dog"]), fresh.encode_prompts(["a photo of a dog"])
    assert torch.equal(condition.prompt_embeds, expected.prompt_embeds)
    noisy, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    again, drawn = base.predict(noisy, timesteps, condition), fresh.predict(noisy, timesteps, expected)
    torch.testing.assert_close(again, drawn)  # the same weights, mapped from a file, may round otherwise
    assert base.schedule.sampling_scheduler().config.beta_schedule == "scaled_linear"


def test_the_fingerprint_is_that_of_the_files(saved: Path, tmp_path: Path) -> None:
    base = load_base(str(saved / "sd"))
    half = load_base(str(copy(saved / "sd", tmp_path / "elsewhere")), dtype=torch.bfloat16)
    assert half.fingerprint == base.fingerprint and next(half.denoiser.parameters()).dtype == torch.bfloat16
    tiny_sd(seed=1).save_pretrained(tmp_path / "other")
    assert load_base(str(tmp_path / "other")).fingerprint != base.fingerprint


def test_what_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MnemonError, match="no base 'wrold'.*'world'"):
        load_base("wrold")
    with pytest.raises(MnemonError, match="There is no base"):
        load_base(str(tmp_path / "missing"))
    with pytest.raises(MnemonError, match="no folder 'nobody/nothing'.*the hub"):
        load_base("nobody/nothing")


def test_world_is_the_packages_own_folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemon.models.loading.files", lambda package: tmp_path)
    with pytest.raises(MnemonError, match="mnemon base build"):
        load_base("world")
    copy(saved / "sd", tmp_path / "base")
    base = load_base("world")
    assert base.name == "world" and base.family == "sd"


def test_what_is_no_pipeline_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MnemonError, match="no diffusers pipeline: it has no model_index.json"):
        load_base(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(MnemonError, match="cannot be read"):
        load_base(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}), encoding="utf-8")
    with pytest.raises(MnemonError, match=r"KolorsPipeline.*StableDiffusionPipeline \(sd\), StableDiffusionXLPipeline"):
        load_base(str(tmp_path))
    single = tmp_path / "model.safetensors"
    single.write_bytes(b"")
    with pytest.raises(MnemonError, match="damaged"):
        load_base(str(single))


def test_pickled_weights_are_refused_unread(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved / "sd", tmp_path / "base")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(MnemonError, match=r"diffusion_pytorch_model.bin' is a pickle.*save_pretrained"):
        load_base(str(folder))


def test_missing_and_damaged_weights_are_named(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved / "sd", tmp_path / "base")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MnemonError, match="vae.*damaged"):
        load_base(str(folder))
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8")
    with pytest.raises(MnemonError, match="vae.*Git LFS"):
        load_base(str(folder))
    weights.unlink()
    with pytest.raises(MnemonError, match="vae' has no weights"):
        load_base(str(folder))


def test_a_pipeline_of_mismatched_parts_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved / "sd", tmp_path / "base")
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 48}))
    with pytest.raises(MnemonError, match="cannot be opened"):
        load_base(str(folder))


def test_nothing_of_the_safety_checker_is_needed(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved / "sd", tmp_path / "base")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert load_base(str(folder)).pipeline().safety_checker is None


@pytest.mark.parametrize("lost", [("vocab.json", "merges.txt", "tokenizer.json"), ("tokenizer.json",)])
def test_a_tokenizer_without_its_words_is_refused(saved: Path, tmp_path: Path, lost: tuple[str, ...]) -> None:
    folder = copy(saved / "sd", tmp_path / "base")
    for name in lost:
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(MnemonError, match="tokenizer"):
        load_base(str(folder))
