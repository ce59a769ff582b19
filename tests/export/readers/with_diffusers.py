"""diffusers as a reader: `load_lora_weights`, then its own merge. See `reading`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from tests.export.readers.reading import Reader, changed_weights, modules, opened, serve


class Diffusers(Reader):
    version = f"diffusers {diffusers.__version__}"

    def open(self, family: str, folder: Path) -> None:
        self.folder, self.pipeline = folder, opened(folder)

    def weights(self, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = modules(self.pipeline)
        with changed_weights(parts, changed):
            return weights_of(parts)

    def read(self, file: Path) -> dict[str, Tensor]:
        pipeline: Any = opened(self.folder)
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
        pipeline.fuse_lora(components=pipeline._lora_loadable_modules)
        pipeline.unload_lora_weights()
        return weights_of(modules(pipeline))


def weights_of(parts: Mapping[str, torch.nn.Module]) -> dict[str, Tensor]:
    states = {
        f"{part}.{name}": weight for part, module in parts.items() for name, weight in module.state_dict().items()
    }
    return {name: weight.clone() for name, weight in states.items()}


if __name__ == "__main__":
    diffusers.utils.logging.enable_propagation()
    serve(Diffusers())
