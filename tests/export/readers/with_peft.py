"""PEFT as a reader: the `LoraConfig` of a file's header, its own loader and its own merge. See `reading`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor

from tests.export.readers.reading import modules, opened, serve
from tests.export.readers.with_diffusers import Diffusers, weights_of


class Peft(Diffusers):
    version = f"PEFT {peft.__version__}"

    def read(self, file: Path) -> dict[str, Tensor]:
        with safe_open(str(file), framework="pt") as held:
            header = json.loads(held.metadata()["lora_adapter_metadata"])
            tensors = {key: held.get_tensor(key) for key in held.keys()}  # noqa: SIM118 (not a dict)
        parts = modules(opened(self.folder))
        for part in {key.split(".")[0] for key in header}:
            config = {
                key.removeprefix(f"{part}."): value for key, value in header.items() if key.startswith(f"{part}.")
            }
            state = {
                key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")
            }
            parts[part] = merged(parts[part], LoraConfig(**config), state)
        return weights_of(parts)


def merged(module: Any, config: LoraConfig, state: Mapping[str, Tensor]) -> Any:
    if not hasattr(module, "text_model"):  # transformers 5 has no such level; diffusers takes it away likewise
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
    model = get_peft_model(module, config)
    result = set_peft_model_state_dict(model, {f"base_model.model.{key}": value for key, value in state.items()})
    if result.unexpected_keys:
        raise ValueError(f"unexpected keys, such as {result.unexpected_keys[0]}")
    return model.merge_and_unload()


if __name__ == "__main__":
    serve(Peft())
