"""Stable Diffusion 1.x, 2.x and XL from one file in the layout of their original code.

The file has weights only. What else a pipeline is made of comes from a folder of configs and tokenizers beside it,
named as the file without its suffix, if there is one; else the published configs are taken (`models/original`), with
CLIP's tokenizer from a folder `tokenizer` beside the file or from the hub.
"""

import json
import re
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTokenizer

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.hash_cache import cached_sha256
from mnemon.models.pipeline_folder import INDEX, check_vocabulary, first_line, read_config
from mnemon.models.sd import StableDiffusion
from mnemon.models.sdxl import StableDiffusionXL
from mnemon.models.weight_files import check_whole

UNET, VAE = "model.diffusion_model.", "first_stage_model."
ENCODERS = {
    "sd1": {"text_encoder": "cond_stage_model.transformer."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
"""The text encoders' prefixes, by the kind of checkpoint; those ending in `model.` are OpenCLIP's."""
FOREIGN = {
    "edm_": "of EDM's noise, which mnemon does not know",
    "model.diffusion_model.double_blocks.": "a transformer: give a diffusers folder of it",
    "double_blocks.": "a transformer: give a diffusers folder of it",
    "model.diffusion_model.joint_blocks.": "a transformer: give a diffusers folder of it",
    "conditioner.embedders.0.model.": "the refiner of SDXL: choose its base",
    "lora_": "a LoRA: give the base that it was trained on, and the LoRA to `mnemon import`",
    "scaled_fp8": "quantised to fp8 with scales of its own: choose a checkpoint in fp16 or bf16",
}
"""First words of the tensors' names, and what such a file is."""
SILENT = re.compile(
    r"(alphas|betas|denoiser\.|log_|logvar|lvlb_|model_ema\.|posterior_|sqrt_|v_pred|ztsnr).*|.*(position_ids|logit_scale)"
    r"|cond_stage_model\.model\.(text_projection|transformer\.resblocks\.23\..*)"
)
"""Tensors that are not read and need no word: schedules, averages over training, what the U-Net never sees."""
COPIED = re.compile(r".*(in_proj_weight|in_proj_bias|text_projection)")
"""Tensors that are read in parts or transposed."""
PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
CLIP = "openai/clip-vit-large-patch14"
Tensors = dict[str, Tensor]
_FAMILIES: dict[str, type[Base]] = {"sdxl": StableDiffusionXL}


def open_single_file(path: Path, dtype: torch.dtype, prediction: str = "") -> tuple[type[Base], Any, str]:
    """The family, the pipeline, and the fingerprint of a checkpoint; `prediction` as in `PREDICTIONS`, or "".

    Raises:
        MnemonError: no whole safetensors file, of no known kind, or what it lacks is not there; the message says which
            and what to do.

    Warns:
        UserWarning: tensors of the file are not read.
    """
    if path.suffix != ".safetensors":
        raise MnemonError(
            f"'{path}' is no safetensors file: pickles (.ckpt, .pt, .bin) can run code when opened, and other formats "
            "are not read. Give a diffusers folder or a .safetensors checkpoint."
        )
    check_whole([path])
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    kind = _kind(path, tensors)
    folder = path.with_suffix("")
    own = folder if (folder / INDEX).is_file() else None
    parts, options = _configs(kind, own)
    library, scheduler, config = parts.pop("scheduler")
    prediction = _prediction(path, kind, tensors, metadata, prediction, None if own is None else config)
    config = {**config, "prediction_type": prediction}
    if "ztsnr" in tensors:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if own is None and kind == "sd2" and prediction == "epsilon":
        parts["unet"][2]["sample_size"] = 64  # of the smaller checkpoints
    modules = {part: _module(path, kind, part, origin, tensors, dtype) for part, origin in parts.items()}
    family = _FAMILIES.get(kind, StableDiffusion)
    pipeline = family.pipeline_class(
        scheduler=getattr(import_module(library), scheduler).from_config(config),
        **modules,
        **_tokenizers(path, kind, own, modules),
        **{**family.unused, **options},
    )
    left = [key for key in tensors if not SILENT.fullmatch(key)]  # parts have taken theirs
    if left:
        warnings.warn(f"{len(left)} tensors of '{path}' are not read, such as '{left[0]}'.", UserWarning, stacklevel=2)
    return family, pipeline, cached_sha256(path)


def single_file_configs(path: Path) -> tuple[type[Base], dict[str, Any], dict[str, Any]]:
    """The family of a checkpoint, its parts by library, class and config, and its pipeline's switches; its weights are
    not read.

    Raises:
        MnemonError: as `open_single_file`, for what the tensors' names say.
    """
    check_whole([path])
    with safe_open(str(path), framework="pt") as file:
        kind = _kind(path, dict.fromkeys(file.keys()))
    folder = path.with_suffix("")
    parts, options = _configs(kind, folder if (folder / INDEX).is_file() else None)
    return _FAMILIES.get(kind, StableDiffusion), parts, options


def _kind(path: Path, tensors: Mapping[str, Any]) -> str:
    for start, what in FOREIGN.items():
        if any(key.startswith(start) for key in tensors):
            raise MnemonError(f"'{path}' is no checkpoint of Stable Diffusion 1.x, 2.x or XL, but {what}.")
    for kind, encoders in ENCODERS.items():
        if all(any(key.startswith(prefix) for key in tensors) for prefix in (UNET, VAE, *encoders.values())):
            return kind
    raise MnemonError(
        f"'{path}' is no whole checkpoint of Stable Diffusion 1.x, 2.x or XL with U-Net, autoencoder and text encoders "
        f"(its tensors are such as '{min(tensors, default='')}'): give one that is, or a diffusers folder."
    )


def _configs(kind: str, folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each part's library, class and config, and the pipeline's switches."""
    if folder is None:
        shipped = json.loads((files("mnemon.models") / "original" / f"{kind}.json").read_text(encoding="utf-8"))
        return shipped["parts"], shipped["options"]
    index = read_config(folder / INDEX, str(folder))
    parts = {}
    for part in ("unet", "vae", *ENCODERS[kind], "scheduler"):
        config = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        parts[part] = (*index.get(part, ["diffusers", ""]), read_config(config, str(folder)))
    return parts, {key: index[key] for key in ("force_zeros_for_empty_prompt",) if key in index}


def _prediction(path: Path, kind: str, tensors: Tensors, metadata: Mapping[str, str], asked: str, config: Any) -> str:
    """What the U-Net predicts: as asked, as the file says, as its own config says, or as all of its kind do."""
    said = asked or ("v" if "v_pred" in tensors else metadata.get("modelspec.prediction_type", ""))
    if not said and config is not None:
        return str(config.get("prediction_type", "epsilon"))
    if said not in PREDICTIONS and (said or kind == "sd2"):
        stated = f"'{said}' is no such thing" if said else "the file does not say which"
        raise MnemonError(
            f"A checkpoint of this kind predicts the noise or the velocity, and {stated}: name it '{path}:epsilon' or "
            f"'{path}:v_prediction' (Stable Diffusion 2 and 2.1 of 768 pixels: v_prediction)."
        )
    return PREDICTIONS.get(said, "epsilon")


def _module(
    path: Path, kind: str, part: str, origin: tuple[str, str, Any], tensors: Tensors, dtype: torch.dtype
) -> nn.Module:
    """One part of the pipeline, its weights taken out of `tensors`."""
    library, name, config = origin
    prefix = {"unet": UNET, "vae": VAE, **ENCODERS[kind]}[part]
    own = {key: tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
    cls = getattr(import_module(library), name)
    if part == "unet":
        config = {**config, "in_channels": own[f"{UNET}input_blocks.0.0.weight"].shape[1]}
    with init_empty_weights():
        module: nn.Module = cls.from_config(config) if library == "diffusers" else cls(cls.config_class(**config))
    expected = module.state_dict()
    weights = _fitting(_converted(part, prefix, module, config, own), expected)
    wrong = [key for key, tensor in expected.items() if key not in weights or weights[key].shape != tensor.shape]
    if wrong:
        got = f"has the shape {tuple(weights[wrong[0]].shape)}" if wrong[0] in weights else "is not in the file"
        shape = tuple(expected[wrong[0]].shape)
        raise MnemonError(
            f"'{path}' does not fit the {name} of {kind}: '{wrong[0]}' {got}, expected {shape}. If it is of "
            "another size, put its configs and tokenizers, as a diffusers folder has them, into "
            f"'{path.with_suffix('')}'."
        )
    taken = {tensor.data_ptr() for tensor in weights.values()}
    tensors |= {key: one for key, one in own.items() if one.data_ptr() not in taken and not COPIED.fullmatch(key)}
    module.load_state_dict({key: tensor.to(dtype) for key, tensor in weights.items()}, assign=True)
    return module.to(dtype)


def _converted(part: str, prefix: str, module: nn.Module, config: Any, own: Tensors) -> Tensors:
    if part == "unet":
        return convert_ldm_unet_checkpoint(own, config)
    if part == "vae":
        return convert_ldm_vae_checkpoint(own, config)
    if prefix.endswith(".model."):
        return convert_open_clip_checkpoint(module, own, prefix=prefix)
    return {key.removeprefix(prefix): tensor for key, tensor in own.items()}


def _fitting(weights: Tensors, expected: Mapping[str, Any]) -> Tensors:
    """The weights by the module's names: CLIP has a level `text_model` or not, depending on library and checkpoint.
    Layers beyond the model's, as Stable Diffusion 2's last one, are left out."""
    bare = {key.removeprefix("text_model."): tensor for key, tensor in weights.items()}
    return {key: bare[key.removeprefix("text_model.")] for key in expected if key.removeprefix("text_model.") in bare}


def _tokenizers(path: Path, kind: str, folder: Path | None, modules: Mapping[str, Any]) -> dict[str, Any]:
    beside = path.parent / "tokenizer"
    found = {}
    for encoder, prefix in ENCODERS[kind].items():
        part = encoder.replace("text_encoder", "tokenizer")
        options = (
            {} if folder else {"model_max_length": 77} | ({"pad_token": "!"} if prefix.endswith(".model.") else {})
        )
        place = str(folder / part) if folder else str(beside) if beside.is_dir() else CLIP
        try:
            found[part] = CLIPTokenizer.from_pretrained(place, **options)
            check_vocabulary(found[part], place)
        except Exception as error:  # whatever transformers and the hub raise about it
            raise MnemonError(
                f"A checkpoint in one file has no tokenizer, and CLIP's cannot be read from '{place}' "
                f"({first_line(error)}): copy the folder 'tokenizer' of any diffusers folder of Stable Diffusion to "
                f"'{beside}', or run once with a connection to the hub."
            ) from error
        if len(found[part]) > (size := modules[encoder].config.vocab_size):
            raise MnemonError(f"The tokenizer in '{place}' has {len(found[part])} tokens, '{path}' embeds {size}.")
    return found
