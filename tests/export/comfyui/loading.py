"""ComfyUI's own code, imported from a checkout, with the weights of a diffusers pipeline in its models.

Nothing of mnemon is imported here: readers are processes without it. Nothing of ComfyUI is in this repository: the
checkout is given by its path. What it imports for models of other kinds than ours (images, sound, its kernels) is stood
in for where it is not installed.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.export.stand_ins import stand_in

STOOD_IN = ("torchvision", "torchaudio", "comfy_kitchen")
KINDS = {
    "sd": ("SD15", "unet", "sd1_clip.SD1ClipModel"),
    "sdxl": ("SDXL", "unet", "sdxl_clip.SDXLClipModel"),
    "sd3": ("SD3", "mmdit", "text_encoders.sd3_clip.SD3ClipModel"),
    "flux": ("Flux", "flux", "text_encoders.flux.FluxClipModel"),
    "flux2": ("Flux2", "flux", None),
    "flux2-klein": ("Flux2", "flux", None),
    "qwen-image": ("QwenImage", None, None),
    "z-image": ("ZImage", "z_image", None),
}
"""Family -> class in `comfy.supported_models`; table of names in `comfy.utils`, if names differ from diffusers'; class
of its text encoders, but for language models."""


@dataclass(frozen=True)
class Parts:
    """The models of a pipeline: its denoiser, its text encoders by ComfyUI's names, and of a U-Net the weights under
    their original names."""

    family: str
    denoiser: Any
    encoders: Mapping[str, Any]
    original: Mapping[str, Tensor]


class ComfyUI:
    """A checkout's modules, on the CPU: `comfyui("lora")` is its `comfy.lora`."""

    def __init__(self, checkout: Path) -> None:
        sys.path.insert(0, str(checkout))
        stand_in(*STOOD_IN)
        sys.argv = [sys.argv[0], "--cpu"]
        self("options").enable_args_parsing()
        self("sd")
        self.version: str = import_module("comfyui_version").__version__

    def __call__(self, path: str) -> Any:
        return import_module(f"comfy.{path}")

    def renamed(self, family: str, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
        """The weights of diffusers' denoiser under ComfyUI's names, fused where its layers are, by its own tables. What
        the table lacks is left out."""
        table = KINDS[family][1]
        if table is None:
            return dict(state)
        targets = getattr(self("utils"), f"{table}_to_diffusers")(dict(config))
        made: dict[str, Tensor] = {}
        pieces: dict[str, dict[int, Tensor]] = {}
        for key, tensor in state.items():
            target = targets.get(key)
            name, offset, change = (*target, None)[:3] if isinstance(target, tuple) else (target, None, None)
            if offset is not None:
                assert offset[0] == 0 and tensor.shape[0] == offset[2], key
                pieces.setdefault(name, {})[offset[1]] = tensor
            elif name is not None:
                made[name] = change(tensor) if change else tensor
        return made | {name: torch.cat([parts[at] for at in sorted(parts)]) for name, parts in pieces.items()}

    def denoiser(self, parts: Parts) -> Any:
        """ComfyUI's model of the family and size, its weights still to be filled in. On the meta device, as
        ComfyUI itself recognises it; of tiny models, whose sizes it does not know, it is told the class."""
        model, real = parts.denoiser, parts.denoiser.device.type == "meta"
        kind = getattr(self("supported_models"), KINDS[parts.family][0])
        detection, state = self("model_detection"), dict(model.state_dict())
        if parts.family in ("sd", "sdxl") and real:
            found = detection.model_config_from_diffusers_unet(state)
        else:
            config = self._seen(parts)
            found = detection.model_config_from_unet_config(config) if real else kind(config)
            found.unet_config |= _unseen(parts.family, model.config)
        assert isinstance(found, kind), f"ComfyUI takes {parts.family} for {type(found).__name__}"
        found.set_inference_dtype(torch.float32, None)
        return found.get_model(state, "", device=model.device)

    def text_encoders(self, parts: Parts) -> Any:
        """The text encoders as one model of ComfyUI's, weights to be filled in; None for language models."""
        path = KINDS[parts.family][2]
        if path is None:
            return None
        options = {}
        for name, encoder in parts.encoders.items():
            sizes = {key: value for key, value in encoder.config.to_dict().items() if isinstance(value, int)}
            sizes["num_hidden_layers"] = max(sizes.get("num_hidden_layers", 0), 3)  # it refuses fewer, for SDXL
            options[f"{name}_model_config"] = sizes
        module, kind = path.rsplit(".", 1)
        device = parts.denoiser.device
        return getattr(self(module), kind)(device=device, dtype=torch.float32, model_options=options)

    def fill(self, comfy_denoiser: Any, comfy_text: Any, parts: Parts) -> set[str]:
        """Put the pipeline's weights into both models; answers which of their weights these are."""
        config = comfy_denoiser.model_config.unet_config
        named = self.renamed(parts.family, parts.denoiser.state_dict(), config)
        filled = _copy(comfy_denoiser, {f"diffusion_model.{key}": tensor for key, tensor in named.items()})
        if comfy_text is None:
            return filled
        for name, encoder in parts.encoders.items():
            prefix = f"{name}.transformer."
            clip = "clip" in prefix
            texts = {
                prefix + ("text_model." if clip and not key.startswith("text_") else "") + key: tensor
                for key, tensor in encoder.state_dict().items()
                if "embed" not in key and "shared" not in key  # tables of words: ComfyUI's have the published length
            }
            filled |= _copy(comfy_text, texts)
        return filled

    def patched(self, comfy_denoiser: Any, comfy_text: Any, file: Path) -> tuple[dict[str, Tensor], list[str]]:
        """What its LoRA loader makes of a file: weights by name, and what it complained of."""
        patcher = self("model_patcher").ModelPatcher
        model, clip = patcher(comfy_denoiser, torch.device("cpu"), torch.device("cpu")), None
        if comfy_text is not None:
            clip = self("sd").CLIP(no_init=True)
            clip.patcher = patcher(comfy_text, torch.device("cpu"), torch.device("cpu"))
            clip.cond_stage_model, clip.tokenizer, clip.layer_idx = comfy_text, None, None
            clip.tokenizer_options, clip.use_clip_schedule, clip.apply_hooks_to_conds = {}, False, None
        with complaints() as said:
            tensors = self("utils").load_torch_file(str(file), safe_load=True)
            model, clip = self("sd").load_lora_for_models(model, clip, tensors, 1.0, 1.0)
            weights: dict[str, Tensor] = {}
            for one in (model, *([clip.patcher] if clip else [])):
                own = one.model.state_dict()
                for key, patches in one.patches.items():
                    weights[key] = self("lora").calculate_weight(patches, own[key].clone(), key)
        return weights, said

    def names(self, comfy_denoiser: Any, comfy_text: Any) -> set[str]:
        """Every spelling of a layer that its LoRA loader maps."""
        names = self("lora").model_lora_keys_unet(comfy_denoiser, {})
        if comfy_text is not None:
            names = self("lora").model_lora_keys_clip(comfy_text, names)
        return set(names)

    def _seen(self, parts: Parts) -> dict[str, Any]:
        """What ComfyUI sees in the weights."""
        family, state = parts.family, parts.denoiser.state_dict()
        if family in ("sd", "sdxl"):
            return dict(self("model_detection").detect_unet_config(parts.original, ""))
        named = self.renamed(family, state, _unseen(family, parts.denoiser.config))
        if family.startswith("flux2"):  # its table has no name for this one, by which it knows the family
            named["double_stream_modulation_img.lin.weight"] = state["double_stream_modulation_img.linear.weight"]
        return dict(self("model_detection").detect_unet_config(named, ""))


def _unseen(family: str, config: Any) -> dict[str, Any]:
    """What its tables and classes need to know and the weights do not show."""
    if family in ("sd", "sdxl"):
        return {"num_heads": -1, "num_head_channels": 8}
    if family == "z-image":
        keys = ("in_channels", "dim", "n_layers", "n_refiner_layers", "n_heads", "n_kv_heads", "axes_dims", "axes_lens")
        rest = {
            "ffn_dim_multiplier": 8 / 3,
            "multiple_of": 1,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "rope_theta": 256.0,
        }
        return {key: config[key] for key in keys} | rest
    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    if family == "qwen-image":
        keys = ("attention_head_dim", "num_attention_heads", "axes_dims_rope", "joint_attention_dim", "out_channels")
        return {key: config[key] for key in keys}
    if family == "sd3":
        assert heads * width % 64 == 0, "ComfyUI's widths are multiples of 64"
        return {"depth": heads * width // 64, "num_blocks": config["num_layers"]}
    patch = 1 if family.startswith("flux2") else 4
    return {
        "out_channels": config["in_channels"] // patch,
        "hidden_size": heads * width,
        "num_heads": heads,
        "axes_dim": list(config["axes_dims_rope"]),
        "depth": config["num_layers"],
        "depth_single_blocks": config["num_single_layers"],
    }


def _copy(model: nn.Module, state: Mapping[str, Tensor]) -> set[str]:
    own = model.state_dict()
    found = state.keys() & own.keys()
    for key in found:
        assert own[key].numel() == state[key].numel(), f"{key}: {tuple(own[key].shape)} for {tuple(state[key].shape)}"
        own[key].copy_(state[key].view(own[key].shape))
    return set(found)


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Everything that is logged as a warning or worse."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(handler)
