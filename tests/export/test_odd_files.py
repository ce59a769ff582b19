"""Files that are nearly as they should be: carried, or refused for the reason that is the reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.export import read_adapter
from mnemon.export.triggers import trigger_of
from mnemon.models import Base
from tests.tiny import tiny_sd_base

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
ENCODER = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def factors(name: str, rank: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {f"{name}.lora_A.weight": torch.randn(rank, 32), f"{name}.lora_B.weight": torch.randn(32, rank)}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (f"module.unet.{LAYER}", LAYER),
        (f"unet._orig_mod.{LAYER}", LAYER),
        (f"_orig_mod.module.lora_unet_{LAYER.replace('.', '_')}", LAYER),
        (f"module.text_encoder.{ENCODER}", f"text_encoder.{ENCODER}"),
        (f"text_encoder._orig_mod.text_model.{ENCODER}", f"text_encoder.{ENCODER}"),
    ],
)
def test_wrappers_of_distributed_and_compiled_training_are_taken_off(
    base: Base, tmp_path: Path, name: str, target: str
) -> None:
    save_file(factors(name), tmp_path / "lora.safetensors")
    assert list(read_adapter([tmp_path / "lora.safetensors"], base).deltas) == [target]


@pytest.mark.parametrize("alpha", [False, True])
def test_factors_of_no_rank_are_refused(base: Base, tmp_path: Path, alpha: bool) -> None:
    tensors = factors(f"unet.{LAYER}", rank=0) | ({f"unet.{LAYER}.alpha": torch.tensor(4.0)} if alpha else {})
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(MnemonError, match="rank 0"):
        read_adapter([tmp_path / "lora.safetensors"], base)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([1, 2], "no JSON object"),
        ({"unet.r": "two", "unet.lora_alpha": "x"}, "scale in the adapter config"),
        ({"unet.r": 2, "unet.lora_alpha": None}, "scale in the adapter config"),
        ({"unet.r": 2, "unet.alpha_pattern": {"(to_k": 3}}, "scale in the adapter config"),
        ({"unet.r": 2, "unet.alpha_pattern": ["to_k"]}, "scale in the adapter config"),
    ],
)
def test_an_adapter_config_that_says_no_scale_is_refused(base: Base, tmp_path: Path, config: object, said: str) -> None:
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    save_file(factors(f"unet.{LAYER}"), tmp_path / "lora.safetensors", metadata=metadata)
    with pytest.raises(MnemonError, match=said):
        read_adapter([tmp_path / "lora.safetensors"], base)


def test_an_alpha_of_zero_in_a_pattern_is_zero(base: Base, tmp_path: Path) -> None:
    config = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_k": 0}}
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    save_file(factors(f"unet.{LAYER}"), tmp_path / "lora.safetensors", metadata=metadata)
    assert not read_adapter([tmp_path / "lora.safetensors"], base).deltas[LAYER].matrix().any()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["pytorch_lora_weights", "learned_embeds"], "several files, learned_embeds.*, pytorch_lora_weights"),
        (["pytorch_lora_weights", "rex_emb"], "several files, pytorch_lora_weights.*, rex_emb"),
        (["style"], "it has 'style.safetensors': give the file itself"),
        ([], "has none of"),
        (["adapter_model"], "no adapter_config.json beside it"),
    ],
)
def test_a_folder_of_which_something_would_be_passed_over_is_refused(
    base: Base, tmp_path: Path, files: list[str], said: str
) -> None:
    for name in files:
        save_file(factors(f"unet.{LAYER}"), tmp_path / f"{name}.safetensors")
    with pytest.raises(MnemonError, match=said):
        read_adapter([tmp_path], base)


@pytest.mark.parametrize(
    ("images", "words"), [(5, "ohwx man"), ("5", "ohwx man"), ("many", None), (None, None), ([5], None)]
)
def test_counts_of_images_that_are_texts_or_nothing(images: object, words: str | None) -> None:
    tags = {"10_ohwx": {"ohwx man": 5, "hat": "2", "sun": None}}
    dirs = {"10_ohwx": {"n_repeats": 10, "img_count": images}}
    found = trigger_of({"ss_tag_frequency": json.dumps(tags), "ss_dataset_dirs": json.dumps(dirs)})
    assert (found and found.words) == words
