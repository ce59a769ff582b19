"""Files under the names of the models' authors, with fused and reordered layers, and in the formats of few tools."""

import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mnemon.export.checkpoint import unet_names
from mnemon.models import Base
from mnemon.models.layers import every_layer
from tests.export.layouts import (
    ALPHA,
    RANK,
    Layout,
    denoiser,
    factors_of,
    normal,
    product,
    some_layers,
    split_target,
    written,
)

ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
BLOCK, ONE = "transformer_blocks.0", "single_transformer_blocks.0"
STREAMS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "double_blocks.0.img_attn.qkv": (BLOCK, ATTENTION),
    "double_blocks.0.txt_attn.qkv": (BLOCK, ADDED),
    "double_blocks.0.img_attn.proj": f"{BLOCK}.attn.to_out.0",
    "double_blocks.0.txt_attn.proj": f"{BLOCK}.attn.to_add_out",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "swapped norm_out.linear",
}
AUTHORS: dict[str, dict[str, str | tuple[str, tuple[str, ...]]]] = {
    "flux": {
        **STREAMS,
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "double_blocks.0.img_mod.lin": f"{BLOCK}.norm1.linear",
        "double_blocks.0.txt_mod.lin": f"{BLOCK}.norm1_context.linear",
        "double_blocks.0.img_mlp.0": f"{BLOCK}.ff.net.0.proj",
        "double_blocks.0.txt_mlp.2": f"{BLOCK}.ff_context.net.2",
        "single_blocks.0.modulation.lin": f"{ONE}.norm.linear",
        "single_blocks.0.linear1": (ONE, SINGLE),
        "single_blocks.0.linear2": f"{ONE}.proj_out",
    },
    "flux2": {
        **STREAMS,
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "double_blocks.0.img_mlp.0": f"{BLOCK}.ff.linear_in",
        "double_blocks.0.txt_mlp.2": f"{BLOCK}.ff_context.linear_out",
        "single_blocks.0.linear1": f"{ONE}.attn.to_qkv_mlp_proj",
        "single_blocks.0.linear2": f"{ONE}.attn.to_out",
    },
    "sd3": {
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
        "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
        "context_embedder": "context_embedder",
        "joint_blocks.0.x_block.adaLN_modulation.1": f"{BLOCK}.norm1.linear",
        "joint_blocks.0.context_block.adaLN_modulation.1": f"{BLOCK}.norm1_context.linear",
        "joint_blocks.1.context_block.adaLN_modulation.1": "swapped transformer_blocks.1.norm1_context.linear",
        "joint_blocks.0.x_block.attn.qkv": (BLOCK, ATTENTION),
        "joint_blocks.0.x_block.attn2.qkv": (BLOCK, ("attn2.to_q", "attn2.to_k", "attn2.to_v")),
        "joint_blocks.0.context_block.attn.qkv": (BLOCK, ADDED),
        "joint_blocks.0.x_block.attn.proj": f"{BLOCK}.attn.to_out.0",
        "joint_blocks.0.context_block.attn.proj": f"{BLOCK}.attn.to_add_out",
        "joint_blocks.0.x_block.mlp.fc1": f"{BLOCK}.ff.net.0.proj",
        "joint_blocks.0.context_block.mlp.fc2": f"{BLOCK}.ff_context.net.2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "swapped norm_out.linear",
    },
    "z-image": {
        "x_embedder": "all_x_embedder.2-1",
        "cap_embedder.1": "cap_embedder.1",
        "layers.0.attention.qkv": ("layers.0.attention", ("to_q", "to_k", "to_v")),
        "noise_refiner.0.attention.qkv": ("noise_refiner.0.attention", ("to_q", "to_k", "to_v")),
        "layers.1.attention.out": "layers.1.attention.to_out.0",
        "layers.0.feed_forward.w1": "layers.0.feed_forward.w1",
        "layers.0.adaLN_modulation.0": "layers.0.adaLN_modulation.0",
        "final_layer.linear": "all_final_layer.2-1.linear",
        "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
    },
}
AUTHORS["flux2-klein"] = AUTHORS["flux2"]


def original_layouts(base: Base) -> Iterator[Layout]:
    """Files under the authors' names, in five spellings, and the formats that only this family has."""
    torch.manual_seed(12)
    if base.family in ("sd", "sdxl"):
        yield from u_net_layouts(base)
    table = AUTHORS.get(base.family)
    if table is None:
        return
    spellings: dict[str, tuple[Callable[[str], str], str, bool]] = {
        "ComfyUI's": (lambda name: f"diffusion_model.{name}", "peft", True),
        "ComfyUI's, kohya's ends": (lambda name: f"model.diffusion_model.{name}", "kohya", True),
        "bare": (lambda name: name, "peft", False),
        "kohya's": (lambda name: f"lora_unet_{name.replace('.', '_')}", "kohya", True),
        "OneTrainer's": (lambda name: f"transformer.{name}", "kohya", True),
    }
    for title, (spelled, spelling, alpha) in spellings.items():
        layout = Layout(f"authors' names, {title}")
        for name, meant in table.items():
            add_original(layout, base, spelled(name), meant, spelling, alpha)
        yield layout
    if base.family == "flux":
        yield xlabs(base)


def add_original(
    layout: Layout, base: Base, name: str, meant: str | tuple[str, tuple[str, ...]], spelling: str, alpha: bool
) -> None:
    """One layer of the authors as rows of the base's, one after another, or with its halves exchanged."""
    layers = every_layer(base)
    if isinstance(meant, tuple):
        targets = [f"{meant[0]}.{path}" for path in meant[1]]
    else:
        targets = [meant.removeprefix("swapped ")]
    first = layers[targets[0]]
    assert isinstance(first, nn.Linear | nn.Conv2d)
    rows = [layers[target].weight.shape[0] for target in targets]  # type: ignore[union-attr]
    down, up = factors_of(first)
    up = normal(sum(rows), *up.shape[1:])
    layout.add(name, (down, up), spelling, alpha)
    change = product((down, up), alpha)
    if isinstance(meant, str) and meant.startswith("swapped"):
        shift, scale = change.chunk(2)
        change = torch.cat([scale, shift])
    layout.changes |= dict(zip(targets, change.split(rows), strict=True))


def xlabs(base: Base) -> Layout:
    """Factors in the attention processors of the authors' names: known to diffusers' converter."""
    layout = Layout("xlabs")
    joined = {"qkv_lora1": ATTENTION, "proj_lora2": ("attn.to_add_out",), "qkv_lora2": ADDED}
    for name, paths in joined.items():
        down, up = normal(RANK, 32), normal(32 * len(paths), RANK)
        key = f"double_blocks.0.processor.{name}"
        layout.tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
        targets = [f"{BLOCK}.{path}" for path in paths]
        layout.changes |= dict(zip(targets, (up @ down).chunk(len(paths)), strict=True))
    return layout


def u_net_layouts(base: Base) -> Iterator[Layout]:
    names = unet_names(base.denoiser)
    layers = {target: layer for target, layer in some_layers(base).items() if not split_target(base, target)[0]}

    def own(path: str) -> str:
        head = max((name for name in names if f"{path}.".startswith(f"{name}.")), key=len)
        return names[head] + path[len(head) :]

    def kohya(_: str, path: str) -> str:
        return f"lora_unet_{own(path).replace('.', '_')}"

    yield written("kohya, original names", base, layers, kohya, "kohya", True)
    yield written("unet. and original names", base, layers, lambda _, path: f"unet.{own(path)}", "kohya", True)
    yield written("ComfyUI, original names", base, layers, lambda _, path: f"diffusion_model.{own(path)}", "peft", True)
    yield processors(base)
    if base.family == "sd":
        yield numbered(base)


def processors(base: Base) -> Layout:
    """As diffusers wrote it before 0.17."""
    layout = Layout("attention processors")
    layers = every_layer(base)
    for end in ("to_q", "to_k", "to_out.0"):
        target = f"mid_block.attentions.0.transformer_blocks.0.attn2.{end}"
        down, up = factors_of(layers[target])
        key = target.replace(f".{end}", f".processor.{end.removesuffix('.0')}_lora")
        layout.tensors |= {f"{denoiser(base)}.{key}.down.weight": down, f"{denoiser(base)}.{key}.up.weight": up}
        layout.changes[target] = up @ down
    return layout


def numbered(base: Base) -> Layout:
    """cloneofsimo's: layers in the order of PyTorch's modules, a token beside them."""
    layout = Layout("cloneofsimo", header={"unet": json.dumps(["CrossAttention"]), "<s1>": "<embed>"})
    modules = dict(base.denoiser.named_modules())
    attentions = [path for path, module in modules.items() if type(module).__name__ == "Attention"]
    inside = {path: modules[path].named_modules() for path in attentions}
    targets = [f"{path}.{name}" for path in attentions for name, layer in inside[path] if isinstance(layer, nn.Linear)]
    for number, target in enumerate(targets):
        down, up = factors_of(modules[target])
        layout.tensors |= {f"unet:{number}:up": up, f"unet:{number}:down": down}
        layout.changes[target] = up @ down
    vector: Tensor = normal(32)
    layout.tensors["<s1>"], layout.vectors["text_encoder"] = vector, vector[None]
    assert ALPHA != RANK  # a file without alpha is told from one with it
    return layout
