"""kohya's sd-scripts, which merge a LoRA file into a checkpoint: `merge_to_sd_model` of SD 1.x and SDXL, and both
functions for FLUX.1. See `reading`; CHECKOUT is kohya-ss/sd-scripts.

Its models of SD and SDXL have their sizes as constants of their modules, set here to those of the base.
"""

import logging
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.export.readers.reading import PARTS, Reader, serve
from tests.export.stand_ins import stand_in

STOOD_IN = ("torchvision", "cv2", "imagesize", "voluptuous", "fire", "mediapipe")
OF_PICTURES = ("library.lpw_stable_diffusion", "library.sdxl_lpw_stable_diffusion")


class SdScripts(Reader):
    says = (logging.INFO, r"no module found|Unused keys")

    def __init__(self, checkout: Path) -> None:
        sys.path[:0] = [str(checkout / "networks"), str(checkout)]
        stand_in(*STOOD_IN, *OF_PICTURES)
        self.version = "sd-scripts"
        self.work = Path(tempfile.mkdtemp())

    def open(self, family: str, folder: Path) -> None:
        self.family, self.states = family, {}
        for part in PARTS:
            files = list((folder / part).glob("*.safetensors"))
            if files:
                self.states[part] = {key: tensor for file in files for key, tensor in load_file(file).items()}
        original = folder / "original.safetensors"
        self.original = load_file(original) if original.exists() else {}
        self.folder = folder

    def weights(self, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        states = self._changed(changed)
        if self.family == "flux":
            return self._flux(states)
        return dict(_named(self._models(states)))

    def read(self, file: Path) -> dict[str, Tensor]:
        if self.family == "flux":
            return self._read_flux(file)
        models = self._models(self.states)
        parts = list(models.values())
        if self.family == "sdxl":
            merge = import_module("sdxl_merge_lora").merge_to_sd_model
            merge(parts[1], parts[2], parts[0], [str(file)], [1.0], [], torch.float32)
        else:
            merge = import_module("merge_lora").merge_to_sd_model
            merge(parts[1], parts[0], [str(file)], [1.0], torch.float32)
        return dict(_named(models))

    def _changed(self, changed: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        return {
            part: {key: changed.get(f"{part}.{key}", tensor) for key, tensor in state.items()}
            for part, state in self.states.items()
        }

    def _models(self, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, nn.Module]:
        """Its U-Net and the text encoders of transformers, as it loads them."""
        made = {"unet": self._unet(states["unet"])}
        for part in ("text_encoder", "text_encoder_2"):
            if part in states:
                made[part] = self._text(part, states[part])
        return made

    def _unet(self, state: Mapping[str, Tensor]) -> nn.Module:
        width = state["conv_in.weight"].shape[0]
        if self.family == "sdxl":
            module = import_module("library.sdxl_original_unet")
            module.MODEL_CHANNELS, module.TIME_EMBED_DIM = width, 4 * width
            unet = module.SdxlUNet2DConditionModel()
            state = import_module("library.sdxl_model_util").convert_diffusers_unet_state_dict_to_sdxl(dict(state))
        else:
            module = import_module("library.original_unet")
            module.BLOCK_OUT_CHANNELS = tuple(times * width for times in (1, 2, 4, 4))
            module.TIMESTEP_INPUT_DIM, module.TIME_EMBED_DIM = width, 4 * width
            context = state["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
            unet = module.UNet2DConditionModel(sample_size=8, attention_head_dim=8, cross_attention_dim=context)
        unet.load_state_dict(state)
        return unet

    def _text(self, part: str, state: Mapping[str, Tensor]) -> nn.Module:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        kind = CLIPTextModelWithProjection if "text_projection.weight" in state else CLIPTextModel
        model = kind(CLIPTextConfig.from_json_file(str(self.folder / part / "config.json")))
        model.load_state_dict(with_level(state))
        return model

    def _flux(self, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The original layout, by the scripts' own function, and CLIP as it lies in a file of its own."""
        keys = states["transformer"].keys()
        double, single = (
            len({key.split(".")[1] for key in keys if key.startswith(start)})
            for start in ("transformer_blocks.", "single_transformer_blocks.")
        )
        flux = import_module("library.flux_utils").convert_diffusers_sd_to_bfl(states["transformer"], double, single)
        return flux | with_level(states["text_encoder"])

    def _read_flux(self, file: Path) -> dict[str, Tensor]:
        own = self._flux(self.states)
        clip = {key: own.pop(key) for key in list(own) if key.startswith("text_model.")}
        flux, text = self.work / "flux.safetensors", self.work / "clip.safetensors"
        save_file(own, flux)
        save_file(clip, text)
        code = import_module("flux_merge_lora")
        rest: tuple[Any, ...] = ([str(file)], [1.0], torch.float32, torch.float32)
        if any(key.startswith("transformer.") for key in load_file(file)):  # its option --diffusers, without encoders
            return dict(code.merge_to_flux_model_diffusers("cpu", "cpu", str(flux), *rest))
        made, texts, _ = code.merge_to_flux_model("cpu", "cpu", str(flux), str(text), None, *rest)
        return {**made, **texts}


def with_level(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's weights with the level `text_model`, which these scripts' version of transformers has."""
    flat = not any(key.startswith("text_model.") for key in state)
    return {f"text_model.{key}" if flat and not key.startswith("text_proj") else key: state[key] for key in state}


def _named(models: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    states = {f"{part}.{key}": weight for part, model in models.items() for key, weight in model.state_dict().items()}
    return {key: weight.detach().clone() for key, weight in states.items()}


if __name__ == "__main__":
    serve(SdScripts(Path(sys.argv.pop(1))))
