"""Single-file checkpoints of Stable Diffusion 1.x and SDXL, in the layout of their original code.

Diffusers reads this layout (`from_single_file`) but does not write it. The rules below name every layer by its position
in the original's lists of blocks, from the diffusers config alone.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mnemon.adapters import merge
from mnemon.errors import MnemonError
from mnemon.export.selection import Selection
from mnemon.models.layers import every_layer

UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_TOP = {
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.1": "mid.block_2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
PREFIXES = {
    "sd": {"text_encoder": "cond_stage_model.transformer.text_model."},
    "sdxl": {"text_encoder": "conditioner.embedders.0.transformer.text_model."},
}
OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."


def checkpoint_tensors(selection: Selection, dtype: torch.dtype) -> dict[str, Tensor]:
    """The whole model with the selection's changes merged. Without tokens: interfaces keep their vocabulary and read
    tokens from embedding files.

    Raises:
        MnemonError: the family has no single-file layout.
    """
    base: Any = selection.base
    if base.family not in PREFIXES or selection.naming.base_version == "sd_v2":
        raise MnemonError(
            f"Single-file checkpoints are written for Stable Diffusion 1.x and SDXL, not for '{base.name}' "
            f"({base.family}): export a folder, which diffusers opens for every family."
        )
    with merge(every_layer(base), selection.deltas):
        pipeline = base.pipeline()
        tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in original_unet(pipeline.unet).items()}
        tensors |= _vae(pipeline.vae)
        tensors |= _clip(pipeline.text_encoder, PREFIXES[base.family]["text_encoder"])
        if base.family == "sdxl":
            tensors |= _open_clip(pipeline.text_encoder_2)
        return {key: tensor.to("cpu", dtype, copy=True) for key, tensor in tensors.items()}


def original_unet(unet: Any) -> dict[str, Tensor]:
    """A U-Net's weights under the original names."""
    names, tensors = unet_names(unet), {}
    for key, tensor in _state(unet).items():
        name = original_name(key, names)
        if name is None:
            raise MnemonError(f"The layer '{key}' has no place in a single-file checkpoint: export a folder instead.")
        tensors[name] = tensor
    return tensors


def unet_names(unet: Any) -> dict[str, str]:
    """Path of a module in diffusers' U-Net -> in the original, such as `down_blocks.1.attentions.0` ->
    `input_blocks.4.1`: the original has one list per side, of resnets, each with its attention, and of samplers."""
    names = dict(UNET_TOP)
    place = 1  # input_blocks.0 is conv_in
    for index, block in enumerate(unet.down_blocks):
        place = _name_block(names, block, f"down_blocks.{index}", "input_blocks", place)
        if block.downsamplers:
            names[f"down_blocks.{index}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
            place += 1
    place = 0
    for index, block in enumerate(unet.up_blocks):
        place = _name_block(names, block, f"up_blocks.{index}", "output_blocks", place)
        if block.upsamplers:  # in the entry of the last resnet, after its attention
            after = 2 if getattr(block, "attentions", None) else 1
            names[f"up_blocks.{index}.upsamplers.0"] = f"output_blocks.{place - 1}.{after}"
    resnets = [path for path in names if ".resnets." in path]
    names |= {f"{path}.{part}": f"{names[path]}.{own}" for path in resnets for part, own in UNET_RESNET.items()}
    return names


def _name_block(names: dict[str, str], block: Any, path: str, side: str, place: int) -> int:
    for index in range(len(block.resnets)):
        names[f"{path}.resnets.{index}"] = f"{side}.{place + index}.0"
        names[f"{path}.attentions.{index}"] = f"{side}.{place + index}.1"
    return place + len(block.resnets)


def original_name(path: str, names: Mapping[str, str]) -> str | None:
    """A path in diffusers' U-Net with its longest prefix in `names` replaced; None if there is none."""
    prefix = path
    while prefix and prefix not in names:
        prefix = prefix.rpartition(".")[0]
    return names[prefix] + path[len(prefix) :] if prefix else None


def _vae(vae: Any) -> dict[str, Tensor]:
    tensors = {}
    for key, tensor in _state(vae).items():
        side, _, rest = key.partition(".")
        if side in ("encoder", "decoder"):
            rest = _vae_name(rest, len(vae.config.block_out_channels))
            # The original's attention consists of 1 x 1 convolutions.
            attends = re.fullmatch(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", rest)
            tensor = tensor[..., None, None] if attends and tensor.ndim == 2 else tensor
        tensors[f"first_stage_model.{side}.{rest}"] = tensor
    return tensors


def _vae_name(key: str, blocks: int) -> str:
    def up(match: re.Match[str]) -> str:
        return f"up.{blocks - 1 - int(match[1])}."  # counted from the image's side

    for path, own in VAE_TOP.items():
        key = re.sub(rf"^{re.escape(path)}\.", f"{own}.", key)
    key = re.sub(r"^down_blocks\.(\d+)\.", r"down.\1.", key)
    key = re.sub(r"^up_blocks\.(\d+)\.", up, key)
    key = key.replace(".resnets.", ".block.").replace("samplers.0.", "sample.").replace("conv_shortcut", "nin_shortcut")
    for part, own in VAE_ATTENTION.items():
        key = key.replace(f"mid.attn_1.{part}.", f"mid.attn_1.{own}.")
    return key


def _clip(model: Any, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key.removeprefix('text_model.')}": tensor for key, tensor in _state(model).items()}


def _open_clip(model: Any) -> dict[str, Tensor]:
    """OpenCLIP has queries, keys and values in one matrix, and projects by x W where transformers has W x."""
    state = {key.removeprefix("text_model."): tensor for key, tensor in _state(model).items()}
    tensors = {"text_projection": state.pop("text_projection.weight").T.contiguous()}
    for key in [key for key in state if ".self_attn.q_proj." in key]:
        three = [state.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        name = key.replace("self_attn.q_proj.", "attn.in_proj_")
        state[name] = torch.cat(three)
    for key, tensor in state.items():
        for part, own in OPEN_CLIP.items():
            key = key.replace(part, own)
        tensors[key] = tensor
    return {f"{OPEN_CLIP_PREFIX}{key}": tensor for key, tensor in tensors.items()}


def _state(module: Any) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in module.state_dict().items() if not key.endswith("position_ids")}
