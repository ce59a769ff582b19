"""ComfyUI's LoRA loader and its patched weights, in its own model classes. See `reading`; CHECKOUT is ComfyUI's."""

import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.export.comfyui.loading import ComfyUI, Parts
from tests.export.readers.reading import Reader, changed_weights, modules, opened, serve

NAMES = {
    "sd": ("clip_l",),
    "sdxl": ("clip_l", "clip_g"),
    "sd3": ("clip_l", "clip_g", "t5xxl"),
    "flux": ("clip_l", "t5xxl"),
}
"""ComfyUI's names of the text encoders that it has LoRA names of."""


class Comfy(Reader):
    def __init__(self, checkout: Path) -> None:
        self.comfy = ComfyUI(checkout)
        self.version = f"ComfyUI {self.comfy.version}"

    def open(self, family: str, folder: Path) -> None:
        self.modules = modules(opened(folder))
        denoiser, *texts = self.modules.values()
        original = folder / "original.safetensors"  # of a U-Net
        names = NAMES.get(family, ())
        self.parts = Parts(
            family, denoiser, dict(zip(names, texts, strict=False)), load_file(original) if original.exists() else {}
        )
        self.denoiser, self.texts = self.comfy.denoiser(self.parts), self.comfy.text_encoders(self.parts)

    def weights(self, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with changed_weights(self.modules, changed):
            filled = self.comfy.fill(self.denoiser, self.texts, self.parts)
            states = {**self.denoiser.state_dict(), **(self.texts.state_dict() if self.texts is not None else {})}
            weights = {key: states[key].clone() for key in filled}
        self.comfy.fill(self.denoiser, self.texts, self.parts)
        return weights

    def read(self, file: Path) -> dict[str, Tensor]:
        weights, said = self.comfy.patched(self.denoiser, self.texts, file)
        self.said = said
        return weights


if __name__ == "__main__":
    serve(Comfy(Path(sys.argv.pop(1))))
