"""LoRA files whose layers differ in rank and scale: every reader of a format finds each layer's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mnemon.export import RankSelection, export
from mnemon.export.importing import read_adapter
from mnemon.export.naming import CLIP, naming_of, split_target
from mnemon.library import Library
from mnemon.models import Base
from mnemon.models.layers import every_layer
from tests.export.conftest import Plain, assert_same, assert_unlike, card_code, drawn, of_ranks

Libraries = Callable[..., Library]
Bases = Callable[[str], Base]
PROMPT = "a photo of <rex> dog in snow"
LEFT = ("up_blocks.0.upsamplers.0.conv", "text_encoder_2.text_projection")
"""Of SDXL in kohya's format: diffusers looks for this convolution after an attention, which the tiny base lacks there,
and gives the projection the rank of most of the encoder's layers."""


def read_by_diffusers(base: Base) -> list[str]:
    naming = naming_of(base)
    parts = {naming.denoiser, *(encoder for encoder, key in naming.encoders.items() if key in CLIP)}
    targets = [target for target in every_layer(base) if split_target(naming, target)[0] in parts]
    return [target for target in targets if base.family != "sdxl" or target not in LEFT]


@pytest.mark.parametrize(
    ("family", "kind"),
    [("sd", "diffusers"), ("sd", "kohya"), ("sdxl", "kohya"), ("flux", "diffusers"), ("flux", "comfy")],
)
def test_diffusers_reads_every_layer_at_its_own_rank_and_scale(
    family: str, kind: str, tiny_base: Bases, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    """Among them FLUX.1's `proj_out`, which other layers' paths end in too, `to_out.0`, convolutions, a rank above the
    layer's sizes, a negative scale, a scale of zero, and encoders of other ranks than the denoiser."""
    base = tiny_base(family)
    ranks = {target: 1 + index % 4 for index, target in enumerate(read_by_diffusers(base))}
    wide = next(target for target in ranks if target.endswith("to_k"))
    own = {wide: 70} | {target: 5 for target in ("proj_out",) if target in ranks}
    one = of_ranks(base, ranks | own, scales=(0.7, 1.0, -2.0, 1.0, 0.0))
    library = library_of(base, one)
    out, embedding = export(library, base, tmp_path / "out", kind=kind), export(library, base, tmp_path / "token")
    file = next(out.folder.glob("*.safetensors"))
    lines = card_code(embedding.folder).splitlines()
    tokens = [line for line in lines if "load_lora_weights" not in line]
    code = "\n".join([f'pipeline.load_lora_weights("{out.folder}", weight_name="{file.name}")', *tokens])
    expected = drawn(library, base, PROMPT)
    assert_unlike(expected, plain.sample(base, PROMPT, code="\n".join(tokens)))
    assert_same(plain.sample(base, PROMPT, code=code), expected)

    given = read_adapter([file], base).deltas
    changed = {target: delta for target, delta in one.deltas.items() if delta.matrix().any()}
    assert given.keys() == changed.keys() < one.deltas.keys()
    for target, delta in changed.items():
        torch.testing.assert_close(given[target].matrix(), delta.matrix(), rtol=1e-4, atol=1e-6)
    assert out.lora is not None and out.lora.error < 1e-6


@pytest.mark.parametrize("targets", [["text_encoder.encoder.layers.0.mlp.fc1"], ["proj_out"]])
def test_diffusers_reads_a_single_layer(
    targets: list[str], tiny_base: Bases, library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    """An encoder without its attention, and a path that others end in."""
    base = tiny_base("flux")
    library = library_of(base, of_ranks(base, dict.fromkeys(targets, 3)))
    out = export(library, base, tmp_path / "out")
    assert_same(plain.sample(base, PROMPT, code=card_code(out.folder)), drawn(library, base, PROMPT))


def test_one_alpha_and_the_factors_of_most_layers_as_they_are(sd: Base, library_of: Libraries, tmp_path: Path) -> None:
    first, *others = sd.target_modules()
    one = of_ranks(sd, {first: 4} | dict.fromkeys(others, 2), scales=(0.5,))
    library = library_of(sd, one)
    out = export(library, sd, tmp_path / "out", kind="kohya").lora
    assert out is not None and out.alpha == 1.0
    assert {tensor.item() for key, tensor in out.tensors.items() if key.endswith(".alpha")} == {1.0}
    for target in others:
        key = "lora_unet_" + target.replace(".", "_")
        torch.testing.assert_close(out.tensors[f"{key}.lora_up.weight"], one.deltas[target].up.data)  # type: ignore[attr-defined]
    cut = export(library, sd, tmp_path / "cut", kind="kohya", rank_selection=RankSelection(energy=0.8)).lora
    assert cut is not None and len(set(cut.ranks.values())) > 1 and cut.error < 0.5


def test_sdxl_for_kohya_has_the_names_of_its_scripts(tiny_base: Bases, library_of: Libraries, tmp_path: Path) -> None:
    base = tiny_base("sdxl")
    target = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    ranks = {target: 2, "add_embedding.linear_1": 2, "text_encoder_2.encoder.layers.0.self_attn.k_proj": 2}
    out = export(library_of(base, of_ranks(base, ranks)), base, tmp_path / "out", kind="kohya").lora
    assert out is not None and {key.split(".")[0] for key in out.tensors} == {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k",
        "lora_unet_label_emb_0_0",
        "lora_te2_text_model_encoder_layers_0_self_attn_k_proj",
    }


def test_layers_that_diffusers_passes_over_are_named(tiny_base: Bases, library_of: Libraries, tmp_path: Path) -> None:
    base, layer = tiny_base("flux"), "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
    library = library_of(base, of_ranks(base, {layer: 2, next(iter(base.target_modules())): 2}))
    for kind, reader in (("diffusers", "diffusers loads no LoRA"), ("comfy", "ComfyUI has no name for 1 of")):
        out = export(library, base, tmp_path / kind, kind=kind)
        (note,) = (note for note in out.notes if layer in note)
        assert note.startswith(reader) and "--as folder" in note and note in (out.folder / "README.md").read_text()
