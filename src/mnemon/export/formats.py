"""The keys of LoRA files in every common format, mapped to the base's layers.

kohya              lora_unet_<path_with_underscores>.lora_down.weight, .alpha; lora_te_, lora_te1_, lora_te2_
PEFT               [base_model.model.]<path>.lora_A.weight, unet.<path>.lora_A.weight
diffusers, new     unet.<path>.lora.down.weight, text_encoder.<path>.lora_linear_layer.down.weight
diffusers, old     [unet.]<path to attention>.processor.to_k_lora.down.weight
ComfyUI            <any of these paths>.diff
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.export.checkpoint import PREFIXES, original_name, unet_names
from mnemon.export.naming import CLIP, Naming, split_target
from mnemon.models import Base

ENDINGS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".diff": "diff",
}
OLD = re.compile(r"(?P<module>.+?)(\.processor)?\.to_(?P<name>q|k|v|out)_lora\.(?P<part>down|up)\.weight")
CLIP_PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
KOHYA_PREFIXES = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}


def tensors_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The file's tensors by the layer's name in the file and their kind: "down", "up", "alpha" or "diff"; the kind of
    others, such as those of DoRA or LoKr, is their key."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, kind = _split(key)
        layers.setdefault(module, {})[kind] = tensor
    return layers


def target_names(base: Base, naming: Naming, target_modules: Iterable[str]) -> dict[str, str]:
    """Every name that a file may have for a layer -> its target module."""
    names: dict[str, str] = {}
    originals = unet_names(base.denoiser) if base.family in PREFIXES else {}
    for target in target_modules:
        part, path = split_target(naming, target)
        paths = [path, f"text_model.{path}"] if naming.encoders.get(part) in CLIP else [path]
        if path.endswith(".to_out.0"):
            paths.append(path.removesuffix(".0"))
        for spelling in paths:
            names[f"{part}.{spelling}"] = names[f"{part}.base_model.model.{spelling}"] = target
            for prefix in KOHYA_PREFIXES.get(part, ()):
                names[f"{prefix}_{spelling.replace('.', '_')}"] = target
            if part == naming.denoiser:
                names[spelling] = names[f"base_model.model.{spelling}"] = target
        if part == naming.denoiser and originals:
            name = original_name(path, originals) or path
            names[f"lora_unet_{name.replace('.', '_')}"] = names[f"diffusion_model.{name}"] = target
    return names


def to_diffusers(base: Base, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors converted by diffusers, for transformer families, whose original code fuses layers otherwise.

    Raises:
        MnemonError: diffusers does not know the format.
    """
    pipeline: Any = getattr(base, "pipeline_class", None)
    if (
        pipeline is None
        or not hasattr(pipeline, "lora_state_dict")
        or all(key.startswith("transformer.") for key in tensors)
    ):
        return dict(tensors)
    try:
        converted = pipeline.lora_state_dict(dict(tensors), return_alphas=True)
    except (ValueError, KeyError, RuntimeError, AttributeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MnemonError(
            f"diffusers cannot convert this file for a base of the family '{base.family}': {reason}"
        ) from error
    state, *rest = converted if isinstance(converted, tuple) else (converted,)
    alphas = rest[0] if rest and isinstance(rest[0], dict) else {}
    return {**state, **{key: value for key, value in alphas.items() if isinstance(value, Tensor)}}


def alpha_in(adapter: Mapping[str, Any], part: str, path: str, rank: int) -> float:
    """A layer's alpha in a PEFT config, for Δ = alpha / rank · up · down; the rank if there is no config.

    Raises:
        MnemonError: the config uses the factors in another way.
    """
    config = {key.removeprefix(f"{part}."): value for key, value in adapter.items()}
    if config.get("use_dora"):
        raise MnemonError("The file holds a DoRA, which is more than two factors: it cannot be imported.")
    patterns = config.get("alpha_pattern") or {}
    matches = (value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path))
    alpha = next(matches, config.get("lora_alpha", rank))
    return float(alpha) * (rank**0.5 if config.get("use_rslora") else 1.0)


def _split(key: str) -> tuple[str, str]:
    """(the layer's name, the tensor's kind)."""
    old = OLD.fullmatch(key)
    if old:
        projections = CLIP_PROJECTIONS if old["module"].endswith("self_attn") else PROJECTIONS
        return f"{old['module']}.{projections[old['name']]}", old["part"]
    for ending, kind in ENDINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), kind
    module, dot, _ = key.removesuffix(".weight").rpartition(".")
    return (module if dot else key), key
