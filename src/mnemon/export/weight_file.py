"""Weight files from elsewhere, checked: safetensors only, complete, finite."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mnemon.errors import MnemonError

PICKLES = (".pt", ".bin", ".ckpt", ".pth", ".pkl")
WEIGHT_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "learned_embeds.safetensors")
PEFT_CONFIG = "adapter_config.json"
ADAPTER_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class WeightFile:
    """A file's tensors and header; `adapter` is its PEFT config by part of the pipeline, or empty."""

    path: Path
    tensors: Mapping[str, Tensor]
    header: Mapping[str, str] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path) -> WeightFile:
    """Read a file, or the weights of a folder of diffusers or PEFT.

    Raises:
        MnemonError: there is no file, or it is a pickle, no safetensors file, truncated, or not finite.
    """
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise MnemonError(f"There is no file '{path}'.")
    if path.suffix.lower() in PICKLES:
        raise MnemonError(
            f"'{path}' is a pickle, which can run code when opened; mnemon reads safetensors only. Look for the file "
            "as safetensors, or, if you trust this one, convert it once in Python: "
            "save_file(torch.load(file, weights_only=True), 'new.safetensors') with safetensors.torch.save_file; of an "
            "A1111 embedding, save {'emb_params': torch.load(file)['string_to_param']['*']}."
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            header = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise MnemonError(
            f"'{path}' is no safetensors file, cut short, or a Git LFS pointer ({reason}): fetch it again."
        ) from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise MnemonError(f"The tensor '{key}' of '{path}' holds values that are not finite: the file is broken.")
    return WeightFile(path, tensors, header, _adapter(path, header))


def _in_folder(folder: Path) -> Path:
    found = [folder / name for name in WEIGHT_NAMES if (folder / name).is_file()]
    if not found:
        raise MnemonError(f"The folder '{folder}' has none of {', '.join(WEIGHT_NAMES)}: give the file itself.")
    return found[0]


def _adapter(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's config: in the header of diffusers' files (`unet.r`), or in a file of its own in PEFT's folders."""
    beside = path.with_name(PEFT_CONFIG)
    try:
        if ADAPTER_METADATA in header:
            return dict(json.loads(header[ADAPTER_METADATA]))
        if path.name == "adapter_model.safetensors" and beside.is_file():
            return dict(json.loads(beside.read_text(encoding="utf-8")))
    except ValueError as error:
        raise MnemonError(f"The adapter config that belongs to '{path}' cannot be read: {error}.") from error
    return {}
