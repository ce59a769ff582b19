"""Folders whose parts are stored quantised: opened as whole weights, on any device and without the package that packed
them, GGUF apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mnemon.errors import MnemonError
from mnemon.export.checkpoint import original_unet
from mnemon.methods.lora import Lora
from mnemon.models import load_base
from mnemon.training import ConceptTask, Examples, TrainingSettings, train
from tests.tiny import tiny_sd
from tests.tiny_transformers import tiny_flux

BLOCK, NESTED = 64, 256
TABLE = torch.linspace(-1, 1, 16)


def blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    """Largest magnitude of each block of a flat tensor."""
    return torch.stack([part.abs().max() for part in values.split(size)])


def nearest(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return (values[:, None] - table).abs().argmin(1).to(torch.uint8)


def four_bit(key: str, weight: torch.Tensor, nested: bool) -> dict[str, torch.Tensor]:
    """As bitsandbytes' `QuantState.as_dict(packed=True)` names the tensors of a weight; compared with 0.50.2."""
    flat = weight.flatten()
    largest = blocks(flat, BLOCK)
    codes = nearest(flat / largest.repeat_interleave(BLOCK)[: len(flat)], TABLE)
    codes = torch.cat([codes, codes.new_zeros(len(codes) % 2)])
    facts: dict[str, Any] = {"quant_type": "nf4", "blocksize": BLOCK, "shape": list(weight.shape), "dtype": "float32"}
    out = {key: (codes[::2] << 4 | codes[1::2])[:, None], f"{key}.quant_map": TABLE.clone(), f"{key}.absmax": largest}
    if nested:
        offset = largest.mean()
        scales = blocks(largest - offset, NESTED)
        share = (largest - offset) / scales.repeat_interleave(NESTED)[: len(largest)]
        table = torch.linspace(-1, 1, 256)
        facts |= {"nested_blocksize": NESTED, "nested_dtype": "float32", "nested_offset": offset.item()}
        out |= {f"{key}.absmax": nearest(share, table), f"{key}.nested_absmax": scales}
        out[f"{key}.nested_quant_map"] = table
    written = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
    return out | {f"{key}.quant_state.bitsandbytes__nf4": written}


def eight_bit(key: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    largest = weight.abs().amax(1)
    codes = (weight / largest[:, None] * 127).round().to(torch.int8)
    path = key.removesuffix("weight")
    return {key: codes, f"{path}SCB": largest, f"{path}weight_format": torch.zeros((), dtype=torch.uint8)}


PACKED: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "4 bits": lambda key, weight: four_bit(key, weight, nested=False),
    "4 bits, scales too": lambda key, weight: four_bit(key, weight, nested=True),
    "8 bits": eight_bit,
}


def packed(folder: Path, part: str, how: str, method: str = "bitsandbytes") -> None:
    """Pack the matrices of attention of one part of a saved pipeline."""
    (file,) = (folder / part).glob("*.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(file).items():
        chosen = tensor.ndim == 2 and key.endswith("weight") and ("attn" in key.lower() or "SelfAttention" in key)
        tensors |= PACKED[how](key, tensor) if chosen and "relative" not in key else {key: tensor}
    save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / part / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "load_in_4bit": "4" in how, "load_in_8bit": "8" in how}
    (folder / part / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("part", ["transformer", "text_encoder", "text_encoder_2"])
def test_what_bitsandbytes_packed_is_read_as_whole_weights(tmp_path: Path, part: str, how: str) -> None:
    pipeline = tiny_flux()
    pipeline.save_pretrained(tmp_path)
    packed(tmp_path, part, how)
    base = load_base(str(tmp_path))
    mine, theirs = (getattr(one, part).state_dict() for one in (base.pipeline(), pipeline))
    assert mine.keys() == theirs.keys()
    within = 0.2 if "4" in how else 0.01
    for key, weight in theirs.items():
        assert mine[key].dtype == weight.dtype and (mine[key] - weight).norm() <= within * weight.norm(), key
    assert sum(not torch.equal(mine[key], theirs[key]) for key in theirs) > 2, "something was packed"


def test_a_method_trains_on_it_and_it_is_packed_again(tmp_path: Path) -> None:
    tiny_flux().save_pretrained(tmp_path)
    packed(tmp_path, "transformer", "4 bits")
    base = load_base(str(tmp_path), quantization="8bit")
    base.resolution = 16
    latents = torch.randn(2, *base.latent_shape())
    concept = ConceptTask("rex", "dog", Examples(latents, ["a <rex> dog"] * 2))
    (learned,) = train(base, Lora(rank=2), [concept], settings=TrainingSettings(steps=2, batch_size=1))
    assert any(delta.matrix().abs().sum() > 0 for delta in learned.deltas.values())


@pytest.mark.parametrize("method", ["torchao", "quanto", "fp8", "modelopt", "gptq"])
def test_other_packings_are_refused_in_a_sentence(tmp_path: Path, method: str) -> None:
    tiny_flux().save_pretrained(tmp_path)
    packed(tmp_path, "transformer", "8 bits", method)
    with pytest.raises(MnemonError, match=f"transformer' is quantised with {method}.*bitsandbytes and GGUF.*--weights"):
        load_base(str(tmp_path))


@pytest.mark.parametrize("lost", ["SCB", "x_embedder.bias"])
def test_packed_weights_that_lack_something_are_refused(tmp_path: Path, lost: str) -> None:
    tiny_flux().save_pretrained(tmp_path)
    packed(tmp_path, "transformer", "8 bits")
    (file,) = (tmp_path / "transformer").glob("*.safetensors")
    save_file({key: one for key, one in load_file(file).items() if not key.endswith(lost)}, file)
    with pytest.raises(MnemonError, match="without their scales|do not fit its config.*'x_embedder.bias'"):
        load_base(str(tmp_path))


def gguf_folder(folder: Path, pipeline: Any, part: str, tensors: dict[str, torch.Tensor], packing: str) -> None:
    """A saved pipeline whose denoiser is a GGUF file."""
    gguf = pytest.importorskip("gguf")
    pipeline.save_pretrained(folder)
    next((folder / part).glob("*.safetensors")).unlink()
    writer = gguf.GGUFWriter(str(folder / part / "model.gguf"), "tiny")
    kind = gguf.GGMLQuantizationType[packing]
    for key, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 and packing != "F32":
            writer.add_tensor(key, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(key, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("packing", "within"), [("F32", 0.0), ("Q8_0", 0.01), ("Q4_0", 0.1)])
@pytest.mark.parametrize("family", ["flux", "sd"])
def test_a_gguf_denoiser_is_read_as_whole_weights(tmp_path: Path, family: str, packing: str, within: float) -> None:
    pipeline = tiny_flux() if family == "flux" else tiny_sd()
    denoiser = pipeline.transformer if family == "flux" else pipeline.unet
    tensors = denoiser.state_dict()
    if family == "sd":
        tensors = {f"model.diffusion_model.{key}": one for key, one in original_unet(denoiser).items()}
    gguf_folder(tmp_path, pipeline, "transformer" if family == "flux" else "unet", tensors, packing)
    base = load_base(str(tmp_path))
    for key, weight in denoiser.state_dict().items():
        assert (base.denoiser.state_dict()[key] - weight).norm() <= within * weight.norm(), key


@pytest.mark.parametrize("count", [1, 2])
def test_a_gguf_file_needs_its_package_and_to_be_the_only_one(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_sd().save_pretrained(tmp_path)
    next((tmp_path / "unet").glob("*.safetensors")).unlink()
    for number in range(count):
        (tmp_path / "unet" / f"{number}.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    said = "needs the extra 'quant'" if count == 1 else r"several GGUF files \(0.gguf, 1.gguf\)"
    with pytest.raises(MnemonError, match=said):
        load_base(str(tmp_path))
