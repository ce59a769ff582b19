"""Files that are nearly as they should be: carried, or refused for the reason that is the reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mnemon.api import import_concept
from mnemon.errors import MnemonError
from mnemon.export import as_concept, read_adapter
from mnemon.export.triggers import trigger_of
from mnemon.methods import method_from
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


FITS = f"unet.{LAYER.replace('to_k', 'to_v')}"


@pytest.mark.parametrize(
    ("down", "up", "said"),
    [
        ((32, 2), (32, 2), r"do not fit together \(down \(32, 2\), up \(32, 2\)\), where up \(32, rank\) and down"),
        ((32, 2), (2, 32), r"\(rank, 32\) are expected|by a matrix of \(2, 2\), which is \(32, 32\)"),
        ((2, 33), (32, 2), r"by a matrix of \(32, 33\), which is \(32, 32\).*all other layers of the file fit"),
    ],
)
def test_a_factor_of_a_wrong_shape_says_which_is_expected(
    base: Base, tmp_path: Path, down: tuple[int, int], up: tuple[int, int], said: str
) -> None:
    wrong = {f"unet.{LAYER}.lora_A.weight": torch.ones(down), f"unet.{LAYER}.lora_B.weight": torch.ones(up)}
    save_file(factors(FITS) | wrong, tmp_path / "lora.safetensors")
    with pytest.raises(MnemonError, match=said):
        read_adapter([tmp_path / "lora.safetensors"], base)


@pytest.mark.parametrize("whole", [True, False])
def test_transposed_matrices_are_not_another_base(base: Base, tmp_path: Path, whole: bool) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"  # (64, 32)
    swapped = {f"{layer}.lora_A.weight": torch.ones(2, 64), f"{layer}.lora_B.weight": torch.ones(32, 2)}
    save_file({f"{layer}.diff": torch.ones(32, 64)} if whole else swapped, tmp_path / "lora.safetensors")
    with pytest.raises(MnemonError, match=r"transposed; up has to be \(64, rank\), down \(rank, 32\)") as caught:
        read_adapter([tmp_path / "lora.safetensors"], base)
    assert "another base" not in str(caught.value)


@pytest.mark.parametrize(
    "scale", ["lora_A.scale_weight", "lora_A.weight_scale", "lora_A.weight.scale_weight", "scale_weight"]
)
def test_scales_of_8_bit_floats_are_named(base: Base, tmp_path: Path, scale: str) -> None:
    scaled = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in factors(f"unet.{LAYER}").items()}
    save_file(scaled | {f"unet.{LAYER}.{scale}": torch.tensor(0.1)}, tmp_path / "lora.safetensors")
    with pytest.raises(MnemonError, match="8-bit floats with scales beside them.*fp16"):
        read_adapter([tmp_path / "lora.safetensors"], base)


@pytest.mark.parametrize("mark", [torch.zeros(0), torch.zeros(2).to(torch.float8_e4m3fn)])
def test_the_mark_of_scales_alone_is_left_with_a_word(base: Base, tmp_path: Path, mark: Tensor) -> None:
    save_file(factors(f"unet.{LAYER}") | {"scaled_fp8": mark}, tmp_path / "lora.safetensors")
    found = read_adapter([tmp_path / "lora.safetensors"], base)
    assert found.skipped == ("scaled_fp8",) and list(found.deltas) == [LAYER]
    assert "changes nothing by itself" in found.accounts[0].reasons()[0]


def test_a_checkpoint_with_scales_is_still_a_checkpoint(base: Base, tmp_path: Path) -> None:
    layer = f"model.diffusion_model.{LAYER}"
    tensors = {f"{layer}.weight": torch.ones(4, 4), f"{layer}.scale_weight": torch.ones(1), "scaled_fp8": torch.ones(1)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(MnemonError, match="is a whole model or a part of one"):
        read_adapter([tmp_path / "model.safetensors"], base)


@pytest.mark.parametrize(("zero", "said"), [("lora_A", True), ("lora_B", True), ("alpha", True), ("", False)])
def test_a_lora_of_zeros_is_imported_with_a_word(base: Base, tmp_path: Path, zero: str, said: bool) -> None:
    tensors = factors(f"unet.{LAYER}") | {f"unet.{LAYER}.alpha": torch.tensor(1.0)}
    tensors = {key: 0 * tensor if zero and zero in key else tensor for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    made = import_concept(
        tmp_path / "library", [tmp_path / "lora.safetensors"], "rex", base=base, method="lora", scored=False
    )
    assert any("changes are zero" in note for note in made.notes) == said


@pytest.mark.parametrize("factor", [1e12, 1e30])
def test_a_change_that_leaves_nothing_to_sample_is_refused_before_it_is_taken_in(
    base: Base, tmp_path: Path, factor: float
) -> None:
    """By large factors, or by an alpha that is finite."""
    by_factors = {key: factor**0.5 * tensor for key, tensor in factors(f"unet.{LAYER}").items()}
    by_alpha = factors(f"unet.{LAYER}") | {f"unet.{LAYER}.alpha": torch.tensor(factor)}
    for tensors in (by_factors, by_alpha):
        save_file(tensors, tmp_path / "lora.safetensors")
        adapter = read_adapter([tmp_path / "lora.safetensors"], base)
        with pytest.raises(MnemonError, match=r"times as large as the weight|not finite"):
            as_concept(adapter, base, method_from("lora"), "rex")


@pytest.mark.parametrize("vectors", [80, 600, 6000])
def test_a_token_that_fills_the_prompt_is_refused(base: Base, tmp_path: Path, vectors: int) -> None:
    save_file({"emb_params": torch.randn(vectors, 32)}, tmp_path / "long.safetensors")
    adapter = read_adapter([tmp_path / "long.safetensors"], base)
    with pytest.raises(MnemonError, match=f"has {vectors} vectors, which leaves no room"):
        as_concept(adapter, base, method_from("lora"), "rex")
