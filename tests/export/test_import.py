"""Files in every common format: mnemon draws with the concept what diffusers draws with the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.export import as_concept, export, read_adapter
from mnemon.export.checkpoint import unet_names
from mnemon.library import Library
from mnemon.models import Base, load_base
from mnemon.training import ConceptTask, Examples, TrainingSettings, train
from tests.export.conftest import Plain, assert_same, assert_unlike, bare, concept, drawn
from tests.tiny_transformers import SIDE, tiny_flux

Libraries = Callable[..., Library]
WORDS, PROMPT = "a photo of red dots in snow", "a photo of <rex> in snow"
PARTS = ("unet", "text_encoder")
RANK, ALPHA = 3, 5.0
EVERYWHERE = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def pipeline_with_lora(base: Base, unet: list[str], text: list[str]) -> Any:
    """The base's pipeline with a PEFT adapter of its own in these layers, all factors drawn at random."""
    kind = StableDiffusionXLPipeline if base.family == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(base.name)
    generator = torch.Generator().manual_seed(3)
    for part, targets in (("unet", unet), ("text_encoder", text)):
        if targets:
            getattr(pipeline, part).add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
            for name, parameter in getattr(pipeline, part).named_parameters():
                if "lora_" in name:
                    parameter.data = 0.15 * torch.randn(parameter.shape, generator=generator)
    return pipeline


def peft_state(pipeline: Any, *parts: str) -> dict[str, Tensor]:
    """`<part>.<path>.lora_A.weight` and so on."""
    return {
        f"{part}.{key}": tensor.detach().clone()
        for part in parts
        for key, tensor in get_peft_model_state_dict(getattr(pipeline, part)).items()
    }


def kohya(state: dict[str, Tensor], rename: Callable[[str], str] = str) -> dict[str, Tensor]:
    """As kohya's scripts write it: `text_model` in the text encoder's names, alpha apart."""
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}
    written: dict[str, Tensor] = {}
    for key, tensor in state.items():
        part, _, path = key.partition(".")
        path, _, factor = path.removesuffix(".weight").rpartition(".")
        name = f"{prefixes[part]}_{rename(path.removeprefix('text_model.')).replace('.', '_')}"
        written[f"{name}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = tensor.contiguous()
        written[f"{name}.alpha"] = torch.tensor(ALPHA)
    return written


def attention_processors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As diffusers wrote it before 0.17: factors in the attention processors, no prefix, no alpha."""
    written = {}
    for key, tensor in state.items():
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            key = key.replace(f".{name}.lora_A", f".processor.{name.removesuffix('.0')}_lora.down")
            key = key.replace(f".{name}.lora_B", f".processor.{name.removesuffix('.0')}_lora.up")
        written[key] = tensor
    return written


def imported(library: Library, base: Base, *files: Path, **how: Any) -> None:
    adapter = read_adapter(files, base)
    library.commit(as_concept(adapter, base, library.method, "rex", **how))


@pytest.mark.parametrize("format", ["kohya", "peft", "diffusers", "attention processors"])
def test_a_lora_in_each_format(sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path, format: str) -> None:
    most = None if format in ("kohya", "peft") else 4  # the others have names for attention only
    pipeline = pipeline_with_lora(sd, EVERYWHERE[:most], [] if format == "attention processors" else TEXT[:most])
    file, header = tmp_path / "lora.safetensors", {"modelspec.trigger_phrase": "red dots"}
    if format == "kohya":
        save_file(kohya(peft_state(pipeline, "unet", "text_encoder")), file, metadata=header)
    elif format == "peft":  # as save_lora_weights writes it
        parts = {f"{part}_lora_layers": get_peft_model_state_dict(getattr(pipeline, part)) for part in PARTS}
        configs = {
            f"{part}_lora_adapter_metadata": getattr(pipeline, part).peft_config["default"].to_dict() for part in PARTS
        }
        StableDiffusionPipeline.save_lora_weights(tmp_path, **parts, **configs, weight_name=file.name)
    elif format == "diffusers":
        save_file(convert_state_dict_to_diffusers(peft_state(pipeline, "unet", "text_encoder")), file, metadata=header)
    else:
        save_file(attention_processors(peft_state(pipeline, "unet")), file, metadata=header)
    original = plain.sample(sd, WORDS, code=f"pipeline.load_lora_weights({str(file)!r})")
    assert_unlike(original, bare(sd, WORDS))

    library = library_of(sd)
    imported(library, sd, file, trigger="red dots" if format == "peft" else None)
    assert_same(drawn(library, sd, PROMPT), original)
    assert_same(bare(sd, WORDS), plain.sample(sd, WORDS))  # and nothing of it is left in the base


def test_a_kohya_lora_of_sdxl_with_the_original_names(
    folders: dict[str, Path], library_of: Libraries, plain: Plain, tmp_path: Path
) -> None:
    base = load_base(str(folders["sdxl"]))
    state = peft_state(pipeline_with_lora(base, ["attn2.to_q", "attn2.to_k", "ff.net.2"], []), "unet")
    names = unet_names(base.denoiser)

    def original_name(path: str) -> str:
        head = path.split(".transformer_blocks")[0]
        return names[head] + path[len(head) :]

    file = tmp_path / "xl.safetensors"
    save_file(kohya(state, original_name), file)
    assert any("input_blocks" in key for key in kohya(state, original_name))
    original = plain.sample(base, WORDS, code=f"pipeline.load_lora_weights({str(file)!r})")
    library = library_of(base)
    imported(library, base, file, trigger="red dots")
    assert_same(drawn(library, base, PROMPT), original)


@pytest.mark.parametrize("key", ["emb_params", "<birb>"])
def test_an_embedding(sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path, key: str) -> None:
    file = tmp_path / "birb.safetensors"
    save_file({key: torch.randn(3, 32, generator=torch.Generator().manual_seed(1))}, file)
    original = plain.sample(sd, PROMPT, code=f"pipeline.load_textual_inversion({str(file)!r}, token='<rex>')")
    library = library_of(sd, method="textual-inversion")
    imported(library, sd, file)
    assert_same(drawn(library, sd, PROMPT), original)
    assert_unlike(original, bare(sd, WORDS))


def test_a_lora_whose_layers_are_numbered(sd: Base, library_of: Libraries, tmp_path: Path) -> None:
    """cloneofsimo's: diffusers does not read it, so its own rule is applied to the weights here."""
    generator = torch.Generator().manual_seed(4)
    tensors, header = {"<s1>": torch.randn(32, generator=generator)}, {"unet": '["CrossAttention", "GEGLU"]'}
    header |= {"<s1>": "<embed>", "text_encoder": '["CLIPAttention"]'}
    changes: list[tuple[nn.Linear, Tensor]] = []
    for part, model in (("unet", sd.denoiser), ("text_encoder", sd.encoders[0].model)):  # type: ignore[attr-defined]
        layers = [
            layer
            for parent in model.modules()
            if type(parent).__name__ in ("Attention", "GEGLU", "CLIPAttention")
            for layer in parent.modules()
            if isinstance(layer, nn.Linear)
        ]
        for number, layer in enumerate(layers):
            up = 0.2 * torch.randn(layer.out_features, 2, generator=generator)
            down = torch.randn(2, layer.in_features, generator=generator)
            tensors |= {f"{part}:{number}:up": up, f"{part}:{number}:down": down}
            changes.append((layer, up @ down))
    file = tmp_path / "numbered.safetensors"
    save_file(tensors, file, metadata=header)
    library = library_of(sd)
    imported(library, sd, file)
    image = drawn(library, sd, PROMPT)

    sd.set_tokens({"rex": {"text_encoder": tensors["<s1>"][None]}})
    for layer, change in changes:
        layer.weight.data += change
    assert_same(image, bare(sd, PROMPT), within=1e-5)


def test_what_was_exported_comes_back(base: Base, library_of: Libraries, tmp_path: Path) -> None:
    """Both formats, one file of full rank as `.diff`, with their embeddings."""
    library = library_of(base, concept(base, "rex", 1), concept(base, "tom", 2, "dense"))
    for kind, name in (("diffusers", "rex"), ("kohya", "rex"), ("kohya", "tom")):
        out = export(library, base, tmp_path / f"{kind}-{name}", [name], kind=kind)
        files = [next(out.folder.glob("*.safetensors")), out.folder / "embeddings" / f"{name}.safetensors"]
        back = as_concept(read_adapter(files, base), base, library.method, name, "dog")
        (kept,) = (one for one in library.learned() if one.name == name)
        for target, delta in kept.deltas.items():
            torch.testing.assert_close(back.deltas[target].matrix(), delta.matrix())
        for encoder, vectors in kept.tokens.items():
            torch.testing.assert_close(back.tokens[encoder], vectors)


@pytest.mark.parametrize("kind", ["diffusers", "kohya", "folder"])
def test_what_was_imported_goes_out_again(
    sd: Base, library_of: Libraries, plain: Plain, tmp_path: Path, kind: str
) -> None:
    """Convolutions and text encoder too."""
    file = tmp_path / "lora.safetensors"
    save_file(kohya(peft_state(pipeline_with_lora(sd, EVERYWHERE, TEXT), *PARTS)), file)
    library = library_of(sd)
    imported(library, sd, file, trigger="red dots")
    out = export(library, sd, tmp_path / "out", kind=kind)
    how: dict[str, Any] = {"base_folder": out.folder}
    if kind != "folder":
        token = f"pipeline.load_textual_inversion('{out.folder}/embeddings/rex.safetensors', token='<rex>')"
        how = {"code": f"pipeline.load_lora_weights({str(next(out.folder.glob('*.safetensors')))!r})\n{token}"}
    assert_same(plain.sample(sd, PROMPT, **how), drawn(library, sd, PROMPT))


def test_what_was_exported_for_comfyui_comes_back(transformer: Base, library_of: Libraries, tmp_path: Path) -> None:
    base = transformer
    library = library_of(base, concept(base, "rex", 1, vectors=2), concept(base, "tom", 2, "dense"))
    for kept in library.learned():
        out = export(library, base, tmp_path / kept.name, [kept.name], kind="comfy")
        files = [out.folder / f"{kept.name}.safetensors", out.folder / "embeddings" / f"{kept.name}.safetensors"]
        back = as_concept(read_adapter(files, base), base, library.method, kept.name)
        assert all(torch.allclose(back.deltas[target].matrix(), d.matrix()) for target, d in kept.deltas.items())
        assert all(torch.equal(back.tokens[encoder], vectors) for encoder, vectors in kept.tokens.items())


def test_a_kohya_lora_of_flux_with_fused_layers(library_of: Libraries, plain: Plain, tmp_path: Path) -> None:
    tiny_flux().save_pretrained(tmp_path / "flux")
    base = load_base(str(tmp_path / "flux"))
    base.resolution = SIDE
    generator, tensors = torch.Generator().manual_seed(2), {}
    for name, d_out in (("double_blocks_0_txt_attn_qkv", 96), ("double_blocks_0_img_attn_proj", 32)):
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.randn(RANK, 32, generator=generator)
        tensors[f"lora_unet_{name}.lora_up.weight"] = 0.3 * torch.randn(d_out, RANK, generator=generator)
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(ALPHA)
    file = tmp_path / "flux.safetensors"
    save_file(tensors, file)
    original = plain.sample(base, WORDS, code=f"pipeline.load_lora_weights({str(file)!r})")
    assert_unlike(original, bare(base, WORDS))
    library = library_of(base)
    imported(library, base, file, trigger="red dots")
    assert_same(drawn(library, base, PROMPT), original)


def test_what_cannot_be_carried_is_named_and_left_out_only_on_request(sd: Base, tmp_path: Path) -> None:
    state = kohya(peft_state(pipeline_with_lora(sd, ["to_k"], []), "unet"))
    state["lora_unet_mid_block_attentions_0_norm.w_norm"] = torch.zeros(64)
    state["lora_unet_conv_out.hada_w1_a"] = torch.zeros(4, 4)
    save_file(state, tmp_path / "more.safetensors")
    with pytest.raises(MnemonError, match="2 tensors.*w_norm.*hada_w1_b.*hada_w1_a.*--partial"):
        read_adapter([tmp_path / "more.safetensors"], sd)
    adapter = read_adapter([tmp_path / "more.safetensors"], sd, partial=True)
    assert len(adapter.skipped) == 2 and len(adapter.deltas) == len([key for key in state if key.endswith("alpha")])


def test_files_that_are_refused(folders: dict[str, Path], sd: Base, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(
        kohya(peft_state(pipeline_with_lora(sd, ["to_k"], []), "unet")),
        whole,
        metadata={"ss_base_model_version": "sd_v1"},
    )
    short = tmp_path / "short.safetensors"
    short.write_bytes(whole.read_bytes()[:-10])
    (tmp_path / "lora.pt").write_bytes(b"\x80\x02")
    save_file({"clip_l": torch.zeros(1, 7), "clip_g": torch.zeros(1, 9)}, tmp_path / "wide.safetensors")
    sdxl = load_base(str(folders["sdxl"]))
    for file, base, message in (
        (short, sd, "cut short"),
        (tmp_path / "lora.pt", sd, "pickle.*save_file"),
        (tmp_path / "none.safetensors", sd, "no file"),
        (whole, sdxl, "made for another base; it says 'sd_v1'"),
        (tmp_path / "wide.safetensors", sdxl, "another family"),
    ):
        with pytest.raises(MnemonError, match=message):
            read_adapter([file], base)


@pytest.mark.parametrize("method", ["lora", "stamina", "c-lora"])
def test_what_was_imported_stays_while_more_is_learned(
    sd: Base, library_of: Libraries, tmp_path: Path, method: str
) -> None:
    """Its changes outside the trained layers too."""
    file = tmp_path / "lora.safetensors"
    save_file(kohya(peft_state(pipeline_with_lora(sd, EVERYWHERE, TEXT), *PARTS)), file)
    library = library_of(sd, method=method)
    imported(library, sd, file, trigger="red dots")
    first = drawn(library, sd, PROMPT)
    task = ConceptTask("tom", "cat", Examples(torch.zeros(2, 4, 8, 8), ["a photo of <tom> cat"] * 2))
    (more,) = train(sd, library.method, [task], library.learned(), TrainingSettings(steps=1, batch_size=2))
    library.commit(more)
    assert more.deltas.keys() == sd.target_modules().keys()
    assert_same(drawn(library, sd, PROMPT, ("rex",)), first, within=1e-6)
    assert_unlike(drawn(library, sd, PROMPT), bare(sd, WORDS))


def test_a_method_that_would_drop_the_change_says_so(sd: Base, library_of: Libraries, tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    save_file(kohya(peft_state(pipeline_with_lora(sd, ["to_k"], []), "unet")), file)
    with pytest.raises(MnemonError, match="textual-inversion"):
        imported(library_of(sd, method="textual-inversion"), sd, file)
