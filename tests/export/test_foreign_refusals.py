"""What a file has beside plain LoRA: each kind is carried as defined or named by its own name, in the file's words."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, PeftConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from mnemon.api.exchange import import_concept
from mnemon.errors import MnemonError
from mnemon.export import read_adapter
from mnemon.export.triggers import trigger_of
from mnemon.library import Library
from mnemon.models import Base
from tests.tiny import tiny_sd_base, tiny_sdxl_base
from tests.tiny_transformers import tiny_base

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
TARGET = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
SIZE, WIDTH = 64, 32  # of the layer: d_out, d_in
MAGNITUDES = ("dora_scale", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight")
Tensors = dict[str, Tensor]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def file_of(folder: Path, tensors: Tensors, name: str = "lora", header: dict[str, str] | None = None) -> Path:
    file = folder / f"{name}.safetensors"
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, file, metadata=header)
    return file


def plain(layer: str = LAYER, down: str = "lora_down", up: str = "lora_up") -> Tensors:
    return {f"{layer}.{down}.weight": torch.randn(2, WIDTH), f"{layer}.{up}.weight": torch.randn(SIZE, 2)}


@pytest.mark.parametrize(
    "family, layer",
    [
        ("sd", LAYER),
        ("flux", "lora_unet_double_blocks_0_img_attn_proj"),
        ("flux", "transformer.transformer_blocks.0.attn.to_q"),
        ("flux2-klein", "diffusion_model.single_blocks.0.linear1"),
        ("qwen-image", "lora_unet_transformer_blocks_0_attn_to_q"),
        ("z-image", "diffusion_model.layers.0.attention.qkv"),
        ("sd3", "lora_unet_joint_blocks_0_x_block_attn_qkv"),
    ],
)
@pytest.mark.parametrize(
    "magnitude", ["dora_scale", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight"]
)
def test_a_dora_is_refused_on_every_family(family: str, layer: str, magnitude: str, tmp_path: Path) -> None:
    base = tiny_sd_base() if family == "sd" else tiny_base(family)
    file = file_of(tmp_path, plain(layer) | {f"{layer}.{magnitude}": torch.rand(SIZE)})
    with pytest.raises(MnemonError, match=f"a DoRA.*'{layer}.{magnitude}'"):
        read_adapter([file], base)


@pytest.mark.parametrize(
    "tensors, reason",
    [
        ({"oft_blocks": zeros(4, 16, 16)}, "OFT or BOFT"),
        ({"boft_R": zeros(2, 4, 4)}, "OFT or BOFT"),
        ({"ia3_l": zeros(WIDTH)}, "IA3"),
        ({"on_input": torch.tensor(0.0), "weight": zeros(SIZE)}, "IA3"),
        ({"a1.weight": zeros(2, WIDTH), "b1.weight": zeros(2, WIDTH)}, "GLoRA"),
        ({"lambda_layer": zeros(1, 2), "q_layer.weight": zeros(2, WIDTH)}, "T-LoRA"),
        ({"lora_down.weight": zeros(2, WIDTH)}, "factors without the up"),
        ({"alpha": torch.tensor(1.0)}, "an alpha without the factors"),
        ({"lokr_w1": zeros(4, 4)}, "factors without the w2_a"),
        ({"lora_up.weight": zeros(SIZE, 3), "lora_down.weight": zeros(2, WIDTH)}, "do not fit together"),
        ({"lokr_w1": zeros(1, 1), "lokr_w2_a": zeros(SIZE, 2), "lokr_w2_b": zeros(1, WIDTH)}, "do not fit together"),
        ({"diff": zeros(SIZE, WIDTH), "hada_w1_a": zeros(SIZE, 2)}, "in several ways at once"),
        ({"lora_down.weight": zeros(2, WIDTH).to(torch.int8), "lora_up.weight": zeros(SIZE, 2)}, "stored as int8"),
        ({"wobble": zeros(3), "alpha": torch.tensor(1.0)}, "not known, 'wobble'"),
        ({"diff": zeros(SIZE, WIDTH), "new_kind_of_scale": zeros(3)}, "not known, 'new_kind_of_scale'"),
        ({"lora_down.weight": zeros(2, WIDTH), "lora_A.weight": zeros(2, WIDTH)}, "two tensors of one kind"),
    ],
)  # fmt: skip
def test_what_is_no_sum_to_a_weight_is_named(tensors: Tensors, reason: str, tmp_path: Path) -> None:
    base = tiny_sd_base()
    bad = {f"{LAYER}.{kind}": tensor for kind, tensor in tensors.items()}
    with pytest.raises(MnemonError, match=f"Nothing in .*{reason}.*{LAYER}"):
        read_adapter([file_of(tmp_path, bad)], base)
    both = bad | plain("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v")
    with pytest.raises(MnemonError, match=f"{len(bad)} tensors .*{reason}.*--partial"):
        read_adapter([file_of(tmp_path, both)], base)
    adapter = read_adapter([file_of(tmp_path, both)], base, partial=True)
    assert set(adapter.skipped) == set(bad) and list(adapter.deltas) == [TARGET.replace("to_k", "to_v")]


@pytest.mark.parametrize("ending", ["diff_b", "lora_B.bias", "lora_up.bias"])
def test_a_bias_is_named_and_the_weight_is_whole_without_it(ending: str, tmp_path: Path) -> None:
    base, key = tiny_sd_base(), f"{LAYER}.{ending}"
    file = file_of(tmp_path, plain() | {key: torch.randn(SIZE)})
    with pytest.raises(MnemonError, match=f"1 tensors .*biases.*'{key}'"):
        read_adapter([file], base)
    adapter = read_adapter([file], base, partial=True)
    assert adapter.skipped == (key,) and list(adapter.deltas) == [TARGET]


def test_norms_and_tables_are_named_by_what_they_are(tmp_path: Path) -> None:
    base = tiny_base("flux")
    good = plain("transformer.transformer_blocks.0.attn.to_q") | {}
    good["transformer.transformer_blocks.0.attn.to_q.lora_up.weight"] = torch.randn(32, 2)
    for name, kind in (
        ("transformer.transformer_blocks.0.attn.norm_q", "RMSNorm"),
        ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.layer_norm", "T5LayerNorm"),
        ("lora_te1_text_model_final_layer_norm", "LayerNorm"),
        ("text_encoder.embeddings.token_embedding", "Embedding"),
    ):
        with pytest.raises(MnemonError, match=f"changes of a {kind}.*'{name}.diff'"):
            read_adapter([file_of(tmp_path, good | {f"{name}.diff": torch.randn(16)})], base)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_every_float_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in plain().items()}
    adapter = read_adapter([file_of(tmp_path, tensors | {f"{LAYER}.alpha": torch.tensor(1)})], tiny_sd_base())
    down, up = (tensors[f"{LAYER}.lora_{name}.weight"].double() for name in ("down", "up"))
    torch.testing.assert_close(adapter.deltas[TARGET].matrix().double(), up @ down / 2)
    broken = tensors | {f"{LAYER}.lora_up.weight": torch.full((SIZE, 2), float("nan")).to(dtype)}
    with pytest.raises(MnemonError, match=f"'{LAYER}.lora_up.weight'.*not finite"):
        read_adapter([file_of(tmp_path, broken)], tiny_sd_base())


def test_one_layer_under_two_names_is_an_error_that_names_both(tmp_path: Path) -> None:
    split, fused = "transformer.transformer_blocks.0.attn.to_k", "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{split}.lora_A.weight": torch.zeros(2, 32), f"{split}.lora_B.weight": torch.zeros(32, 2)}
    tensors |= {f"{fused}.lora_down.weight": torch.zeros(2, 32), f"{fused}.lora_up.weight": torch.zeros(96, 2)}
    with pytest.raises(MnemonError, match=f"one layer under 2 names, '{fused}' and '{split}'"):
        read_adapter([file_of(tmp_path, tensors)], tiny_base("flux"))


def test_four_causes_have_four_messages(tmp_path: Path) -> None:
    base = tiny_sd_base()
    (tmp_path / "notes.safetensors").write_text("my trigger is ohwx\n")
    (tmp_path / "page.safetensors").write_text("<!doctype html><html>Log in</html>")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "zip.safetensors").write_bytes(b"PK\x03\x04archive/data.pkl")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    own = {f"model.diffusion_model.{name}": torch.zeros(3) for name in ("input_blocks.0.0.weight", "out.2.bias")}
    t5 = {"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(3, 3), "shared.weight": torch.zeros(3, 3)}
    flux = {f"lora_unet_single_blocks_0_modulation_lin.{end}.weight": zeros(2, 2) for end in ("lora_up", "lora_down")}
    wan = {f"diffusion_model.blocks.0.cross_attn.k.{end}.weight": torch.zeros(2, 2) for end in ("lora_A", "lora_B")}
    for name, message in (
        (file_of(tmp_path, own, "own").name, "is a whole model or a part of one"),
        (file_of(tmp_path, t5, "t5").name, "is a whole model or a part of one"),
        ("pipeline", "is a whole model"),
        ("notes.safetensors", "is a text file"),
        ("page.safetensors", "is a web page"),
        ("pointer.safetensors", "Git LFS pointer"),
        ("empty.safetensors", "is empty"),
        ("zip.safetensors", "zip archive"),
        (file_of(tmp_path, flux, "flux").name, "made for another base; its layers look like those of FLUX.1"),
        (file_of(tmp_path, wan, "wan").name, "made for another base; its layers look like those of Wan"),
        (
            file_of(tmp_path, {f"{LAYER}.wobble": torch.zeros(2)}, "kind").name,
            "kind of tensor that is not known, 'wobble'",
        ),
    ):
        with pytest.raises(MnemonError, match=message) as refused:
            read_adapter([tmp_path / name], base)
        assert "\n" not in str(refused.value)


def test_embeddings_inside_a_lora(tmp_path: Path) -> None:
    sd, xl = tiny_sd_base(), tiny_sdxl_base()
    vectors = torch.randn(2, 32)
    for key in ("emb_params", "clip_l", "bundle_emb.rex.clip_l", "bundle_emb.rex.string_to_param.*", "<rex>"):
        adapter = read_adapter([file_of(tmp_path, plain() | {key: vectors})], sd)
        assert list(adapter.deltas) == [TARGET] and adapter.tokens is not None
        assert torch.equal(adapter.tokens["text_encoder"], vectors)
    both = {"bundle_emb.a.clip_l": vectors, "bundle_emb.b.clip_l": vectors}
    for base, more, reason in (
        (sd, both, "embeddings of 2 tokens \\('a' and 'b'\\)"),
        (sd, {"clip_l": vectors, "clip_g": torch.randn(2, 16)}, "vectors for 'clip_g'"),
        (sd, {"bundle_emb.a.clip_l": vectors, "bundle_emb.a.clip_l_out": vectors}, "vectors for 'clip_l_out'"),
        (sd, {"clip_l": vectors, "emb_params": vectors}, "same text encoder as"),
        (sd, {"emb_params": torch.randn(2, 7)}, "the widths 7 .text_encoder. where the base reads 32"),
        (xl, {"clip_l": vectors}, "made for another family"),
    ):
        layer = plain() if base is sd else {f"{LAYER}.diff": torch.zeros(SIZE, 48)}
        with pytest.raises(MnemonError, match=reason):
            read_adapter([file_of(tmp_path, layer | more)], base)


@pytest.mark.parametrize("config", [LoHaConfig(r=2, alpha=5), LoKrConfig(r=2, alpha=5), LoKrConfig(r=64, alpha=5)])
def test_pefts_own_loha_and_lokr(config: PeftConfig, tmp_path: Path) -> None:
    """PEFT divides by the rank in the config even where a LoKr's matrices are whole."""
    base = tiny_sd_base()
    config.target_modules, config.init_weights = ["to_k", "conv1"], False
    model = get_peft_model(tiny_sd_base().denoiser, config)
    model.save_pretrained(tmp_path)
    adapter = read_adapter([tmp_path], base)
    layers = {
        name: module for name, module in model.base_model.model.named_modules() if hasattr(module, "get_delta_weight")
    }
    assert adapter.deltas.keys() == layers.keys()
    for target, layer in layers.items():
        expected = layer.get_delta_weight("default").flatten(1).detach()
        torch.testing.assert_close(adapter.deltas[target].matrix(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "setting", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}]
)
def test_pefts_configs_that_change_the_base_are_refused(setting: dict[str, object], tmp_path: Path) -> None:
    path = f"base_model.model.{TARGET}"
    save_file(plain(path, "lora_A", "lora_B"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 2, **setting}))
    with pytest.raises(MnemonError, match="a DoRA|a LoRA of the initialisation"):
        read_adapter([tmp_path], tiny_sd_base())


@pytest.mark.parametrize(
    "header, words",
    [
        ({"modelspec.trigger_phrase": "ohwx man, best quality"}, "ohwx man"),
        ({"ss_tag_frequency": json.dumps({"10_ohwx man": {"ohwx man": 20}})}, "ohwx man"),
        ({"ss_tag_frequency": json.dumps({"a": {" sks": 5}, "b": {"sks": 7}})}, "sks"),
        (
            {
                "ss_tag_frequency": json.dumps({"10_x": {"sks": 20, "1girl": 18}}),
                "ss_dataset_dirs": json.dumps({"10_x": {"n_repeats": 10, "img_count": 20}}),
            },
            "sks",
        ),
        ({"ss_tag_frequency": json.dumps({"10_x": {"sks": 20, "1girl": 18}})}, None),
        ({"ss_tag_frequency": "{broken"}, None),
        ({"ss_tag_frequency": "[1]", "ss_dataset_dirs": "3"}, None),
        ({"modelspec.trigger_phrase": "<rex> dog", "ss_tag_frequency": json.dumps({"m": {"rex": 1}})}, None),
        ({}, None),
    ],
)
def test_the_words_of_a_header(header: dict[str, str], words: str | None) -> None:
    trigger = trigger_of(header)
    assert (trigger.words if trigger else None) == words


def test_the_same_file_twice(tmp_path: Path, library_of: Callable[..., Library], sd: Base) -> None:
    file = file_of(tmp_path, plain(), header={"ss_tag_frequency": json.dumps({"10_ohwx": {"ohwx": 3}})})
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(MnemonError, match="are the same file"):
        read_adapter([file, copy], sd)
    library = library_of(sd)
    first = import_concept(library.path, [file], "rex", base=sd, scored=False)
    assert first.words == "ohwx" and first.notes == ()
    again = import_concept(library.path, [copy], "tom", base=sd, scored=False, trigger="red dots")
    assert again.words == "red dots" and "is in the library already, as <rex>" in again.notes[0]
