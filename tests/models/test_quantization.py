"""Bases with weights in 8 and 4 bits: near the whole ones, smaller, and learned on like any other."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mnemon import MnemonError, api
from mnemon.data import concept_from_folder
from mnemon.methods.lora import Lora
from mnemon.models import FAMILIES, load_base
from mnemon.models.base import Base
from mnemon.models.quantization import Quantization, QuantizedLinear, quantize
from mnemon.training import TrainingSettings
from mnemon.world import thing_concept
from tests.tiny import tiny_sd
from tests.tiny_transformers import PIPELINES, base_on

FAR: dict[str, float] = {"8bit": 0.03, "4bit": 0.35}
"""How far a prediction may move, relative to its norm; a random model has no redundancy."""
needs_extra = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="the extra 'quant' is not there")
BOTH = ["8bit", pytest.param("4bit", marks=needs_extra)]


def base_of(family: str) -> Base:
    """On weights of its own, which may be quantized."""
    return FAMILIES["sd"](tiny_sd(), name="tiny") if family == "sd" else base_on(PIPELINES[family](), family)


@pytest.mark.parametrize("how", BOTH)
def test_a_packed_layer_is_small_exact_in_what_it_holds_and_passes_gradients(how: Quantization) -> None:
    layer = nn.Linear(128, 64).requires_grad_(False)
    packed = QuantizedLinear(layer, how)
    held = packed.weight.nbytes + packed.scales.nbytes
    assert held == {"8bit": 64 * 128 + 4 * 64, "4bit": 64 * 128 // 2 + 4 * 128}[how]
    inputs, saved = torch.randn(3, 5, 128, requires_grad=True), list[int]()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.nbytes), lambda _: None):
        output = packed(inputs)
    assert not saved
    whole = nn.functional.linear(inputs, packed.dequantize(torch.float32), layer.bias)
    torch.testing.assert_close(output, whole)
    (gradient,) = torch.autograd.grad(output.sum(), inputs)
    torch.testing.assert_close(gradient, torch.autograd.grad(whole.sum(), inputs)[0])
    assert (packed.dequantize(torch.float32) - layer.weight).abs().max() < {"8bit": 0.0005, "4bit": 0.015}[how]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed(inputs).dtype == torch.bfloat16


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("family", ["sd", "sd3", "flux2-klein", "z-image"])
def test_a_packed_base_predicts_nearly_what_the_whole_one_does(family: str, how: Quantization) -> None:
    whole, packed = base_of(family), quantize(base_of(family), how, "cpu")
    if family != "sd":
        packed.resolution = whole.resolution
        packed.encoders[-1].length = whole.encoders[-1].length
    assert packed.fingerprint == whole.fingerprint and packed.target_modules().keys() == whole.target_modules().keys()
    assert all(type(target) is nn.Linear for target in packed.target_modules().values())
    assert any(isinstance(layer, QuantizedLinear) for layer in packed.denoiser.modules())
    assert all(any(isinstance(one, QuantizedLinear) for one in e.model.modules()) for e in packed.encoders)
    noisy, timesteps = torch.randn(2, *whole.latent_shape()), torch.tensor([500.0, 100.0])
    prompts = ["a photo of a dog", "a cat"]
    exact = whole.predict(noisy, timesteps, whole.encode_prompts(prompts))
    near = packed.predict(noisy, timesteps, packed.encode_prompts(prompts))
    assert 0 < (near - exact).norm() / exact.norm() < FAR[how]


@pytest.mark.parametrize("how", BOTH)
def test_two_concepts_are_learned_on_a_packed_base_and_drawn_on_either(
    how: Quantization, world_folder: Path, tmp_path: Path
) -> None:
    packed = load_base(str(world_folder), quantization=how)
    before = {key: value.clone() for key, value in packed.denoiser.state_dict().items()}
    for name, seed, class_noun in (("sip", 201, "mug"), ("tom", 202, "cat")):
        thing_concept(name, seed, class_noun).write(tmp_path / name, 2, seed=1)
        api.learn(
            tmp_path / "lib", concept_from_folder(tmp_path / name, class_noun=class_noun), base=packed,
            method=Lora(rank=2),
            training=TrainingSettings(steps=2, batch_size=2, gradient_checkpointing=True), scored=False,
        )  # fmt: skip
    assert all(torch.equal(value, before[key]) for key, value in packed.denoiser.state_dict().items())
    prompt = ["a photo of <sip> mug and <tom> cat"]
    near = api.generate(tmp_path / "lib", prompt, base=packed, num_inference_steps=2)
    exact = api.generate(tmp_path / "lib", prompt, base=str(world_folder), num_inference_steps=2)
    assert near.shape == exact.shape and (near - exact).abs().mean() < 0.1


def test_four_bits_without_the_extra_say_what_to_install(world_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MnemonError, match=r"pip install 'mnemon\[quant\]'"):
        load_base(str(world_folder), quantization="4bit")
