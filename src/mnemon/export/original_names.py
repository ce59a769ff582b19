"""What the authors of a model call its layers, where diffusers renamed, split or reordered them.

A name of the authors stands for one layer of diffusers, or for several whose rows lie one after another in the
authors' one matrix, as queries, keys and values do. `{n}` is the number of a block. Families that are not here have
one set of names only.
"""

from collections.abc import Iterator, Mapping

from torch import nn

from mnemon.export.checkpoint import PREFIXES, original_name, unet_names
from mnemon.models import Base

Names = Mapping[str, tuple[str, ...]]


def _joined(path: str, *layers: str) -> tuple[str, ...]:
    return tuple(f"{path}.{layer}" for layer in layers)


_FLUX_BLOCK, _FLUX_SINGLE = "transformer_blocks.{n}", "single_transformer_blocks.{n}"
_STREAMS: Names = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "double_blocks.{n}.img_attn.qkv": _joined(f"{_FLUX_BLOCK}.attn", "to_q", "to_k", "to_v"),
    "double_blocks.{n}.txt_attn.qkv": _joined(f"{_FLUX_BLOCK}.attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    "double_blocks.{n}.img_attn.proj": (f"{_FLUX_BLOCK}.attn.to_out.0",),
    "double_blocks.{n}.txt_attn.proj": (f"{_FLUX_BLOCK}.attn.to_add_out",),
}
_FLUX: Names = {
    **_STREAMS,
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "double_blocks.{n}.img_mod.lin": (f"{_FLUX_BLOCK}.norm1.linear",),
    "double_blocks.{n}.txt_mod.lin": (f"{_FLUX_BLOCK}.norm1_context.linear",),
    "double_blocks.{n}.img_mlp.0": (f"{_FLUX_BLOCK}.ff.net.0.proj",),
    "double_blocks.{n}.img_mlp.2": (f"{_FLUX_BLOCK}.ff.net.2",),
    "double_blocks.{n}.txt_mlp.0": (f"{_FLUX_BLOCK}.ff_context.net.0.proj",),
    "double_blocks.{n}.txt_mlp.2": (f"{_FLUX_BLOCK}.ff_context.net.2",),
    "single_blocks.{n}.modulation.lin": (f"{_FLUX_SINGLE}.norm.linear",),
    "single_blocks.{n}.linear1": _joined(_FLUX_SINGLE, "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "single_blocks.{n}.linear2": (f"{_FLUX_SINGLE}.proj_out",),
}
_FLUX2: Names = {
    **_STREAMS,
    "time_in.in_layer": ("time_guidance_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_guidance_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_guidance_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_guidance_embed.guidance_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "double_blocks.{n}.img_mlp.0": (f"{_FLUX_BLOCK}.ff.linear_in",),
    "double_blocks.{n}.img_mlp.2": (f"{_FLUX_BLOCK}.ff.linear_out",),
    "double_blocks.{n}.txt_mlp.0": (f"{_FLUX_BLOCK}.ff_context.linear_in",),
    "double_blocks.{n}.txt_mlp.2": (f"{_FLUX_BLOCK}.ff_context.linear_out",),
    "single_blocks.{n}.linear1": (f"{_FLUX_SINGLE}.attn.to_qkv_mlp_proj",),
    "single_blocks.{n}.linear2": (f"{_FLUX_SINGLE}.attn.to_out",),
}
_SD3: Names = {
    "x_embedder.proj": ("pos_embed.proj",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "joint_blocks.{n}.x_block.adaLN_modulation.1": (f"{_FLUX_BLOCK}.norm1.linear",),
    "joint_blocks.{n}.context_block.adaLN_modulation.1": (f"{_FLUX_BLOCK}.norm1_context.linear",),
    "joint_blocks.{n}.x_block.attn.qkv": _joined(f"{_FLUX_BLOCK}.attn", "to_q", "to_k", "to_v"),
    "joint_blocks.{n}.x_block.attn2.qkv": _joined(f"{_FLUX_BLOCK}.attn2", "to_q", "to_k", "to_v"),
    "joint_blocks.{n}.context_block.attn.qkv": _joined(f"{_FLUX_BLOCK}.attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    "joint_blocks.{n}.x_block.attn.proj": (f"{_FLUX_BLOCK}.attn.to_out.0",),
    "joint_blocks.{n}.x_block.attn2.proj": (f"{_FLUX_BLOCK}.attn2.to_out.0",),
    "joint_blocks.{n}.context_block.attn.proj": (f"{_FLUX_BLOCK}.attn.to_add_out",),
    "joint_blocks.{n}.x_block.mlp.fc1": (f"{_FLUX_BLOCK}.ff.net.0.proj",),
    "joint_blocks.{n}.x_block.mlp.fc2": (f"{_FLUX_BLOCK}.ff.net.2",),
    "joint_blocks.{n}.context_block.mlp.fc1": (f"{_FLUX_BLOCK}.ff_context.net.0.proj",),
    "joint_blocks.{n}.context_block.mlp.fc2": (f"{_FLUX_BLOCK}.ff_context.net.2",),
}
_Z_IMAGE: Names = {
    "x_embedder": ("all_x_embedder.2-1",),
    "final_layer.linear": ("all_final_layer.2-1.linear",),
    "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
    **{
        name: paths
        for side in ("layers", "noise_refiner", "context_refiner")
        for name, paths in {
            f"{side}.{{n}}.attention.qkv": _joined(f"{side}.{{n}}.attention", "to_q", "to_k", "to_v"),
            f"{side}.{{n}}.attention.out": (f"{side}.{{n}}.attention.to_out.0",),
        }.items()
    },
}
NAMES: Mapping[str, Names] = {
    "flux": _FLUX,
    "flux2": _FLUX2,
    "flux2-klein": _FLUX2,
    "sd3": _SD3,
    "z-image": _Z_IMAGE,
}


def original_names(base: Base, layers: Mapping[str, nn.Module]) -> dict[str, tuple[str, ...]]:
    """The authors' name -> the paths of the denoiser's layers that it stands for, all of them among `layers`."""
    if base.family in PREFIXES:
        names = unet_names(base.denoiser)
        renamed = {path: original_name(path, names) for path in layers}
        return {name: (path,) for path, name in renamed.items() if name is not None}
    return {
        name: paths
        for pattern, patterns in NAMES.get(base.family, {}).items()
        for name, paths in _numbered(pattern, patterns)
        if all(path in layers for path in paths)
    }


def _numbered(pattern: str, patterns: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number in range(MOST_BLOCKS if "{n}" in pattern else 1):
        yield pattern.format(n=number), tuple(path.format(n=number) for path in patterns)


MOST_BLOCKS = 128
"""More than any published model has."""


def swaps_halves(denoiser: nn.Module, path: str) -> bool:
    """Whether the layer gives (scale, shift) where the authors' gives (shift, scale): diffusers' AdaLayerNormContinuous
    splits its output in the other order."""
    parent, _, name = path.rpartition(".")
    return name == "linear" and type(denoiser.get_submodule(parent)).__name__ == "AdaLayerNormContinuous"
