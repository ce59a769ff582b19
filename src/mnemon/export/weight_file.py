"""Weight files from elsewhere, checked: safetensors only, complete, finite."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mnemon.errors import MnemonError

PICKLES = (".pt", ".bin", ".ckpt", ".pth", ".pkl")
PEFT_WEIGHTS = "adapter_model.safetensors"
WEIGHT_NAMES = ("pytorch_lora_weights.safetensors", PEFT_WEIGHTS, "learned_embeds.safetensors")
PEFT_CONFIG = "adapter_config.json"
ADAPTER_METADATA = "lora_adapter_metadata"
MODEL_CONFIGS = ("model_index.json", "config.json")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"\x80", "is a pickle under another name, which can run code when opened: look for the file as safetensors"),
    (b"PK\x03\x04", "is a zip archive, such as a pickle of PyTorch: look for the file as safetensors"),
    (b"GGUF", "is a GGUF file, which holds whole models: look for the file as safetensors"),
)
"""The first bytes of files that are often taken for safetensors -> what they are and what to do."""


@dataclass(frozen=True)
class WeightFile:
    """A file's tensors and header; `adapter` is its PEFT config by part of the pipeline, or empty.

    Tensors of 8-bit floats are in fp32, which holds their values exactly.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    header: Mapping[str, str] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path) -> WeightFile:
    """Read a file, or the weights of a folder of diffusers or PEFT.

    Raises:
        MnemonError: there is no file, or it is a pickle, a text, no safetensors file, truncated, or not finite.
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
            tensors = {key: _checked(path, key, file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (not a dict)
            header = dict(file.metadata() or {})
    except MnemonError:
        raise
    except Exception as error:  # safetensors raises several types, some for valid files of types that torch lacks
        raise MnemonError(f"'{path}' {_what_it_is(path, error)}.") from error
    return WeightFile(path, tensors, header, _adapter(path, header))


def _checked(path: Path, key: str, tensor: Tensor) -> Tensor:
    """A tensor in memory of its own, whatever happens to the file; floating-point ones as PyTorch computes with them.

    Raises:
        MnemonError: it holds values that are not finite, or is of a type that cannot be converted.
    """
    if not tensor.is_floating_point():
        return tensor.clone()
    if tensor.dtype not in FLOATS:
        try:
            tensor = tensor.float()
        except Exception as error:
            raise MnemonError(f"The tensor '{key}' of '{path}' is of the type {tensor.dtype}: not readable.") from error
    if tensor.numel() and not _is_finite(tensor):
        raise MnemonError(f"The tensor '{key}' of '{path}' holds values that are not finite: the file is broken.")
    return tensor.clone()


def _is_finite(tensor: Tensor) -> bool:
    """In one pass without a copy: the extremes are NaN if any value is."""
    low, high = tensor.aminmax()
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _what_it_is(path: Path, error: Exception) -> str:
    """What a file is that safetensors does not open, and what to do."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as unreadable:
        return f"cannot be read ({unreadable.strerror}): check its permissions"
    for beginning, what in BEGINNINGS:
        if start.startswith(beginning):
            return what
    if not start:
        return "is empty: fetch it again"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a safetensors file: download the file itself, logged in if the site asks for it"
    if b"\x00" not in start and _is_text(start):
        return "is a text file, not a safetensors file: give the weights themselves"
    return f"is no safetensors file, or cut short ({str(error).splitlines()[0]}): fetch it again"


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", errors="ignore")
    return len(text.encode()) > len(start) - 4 and all(letter.isprintable() or letter.isspace() for letter in text)


def _in_folder(folder: Path) -> Path:
    """The folder's one weight file, by one of the names that diffusers and PEFT give it."""
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if any((folder / name).is_file() for name in MODEL_CONFIGS) and not set(files) & set(WEIGHT_NAMES):
        raise MnemonError(f"The folder '{folder}' is a whole model, not a LoRA or an embedding: give it as --base.")
    if len(files) > 1:
        raise MnemonError(f"The folder '{folder}' has several files, {', '.join(files)}: give those that you mean.")
    if not files or files[0] not in WEIGHT_NAMES:
        there = f"; it has '{files[0]}'" if files else ""
        raise MnemonError(f"The folder '{folder}' has none of {', '.join(WEIGHT_NAMES)}{there}: give the file itself.")
    return folder / files[0]


def _adapter(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's config: in the header of diffusers' files (`unet.r`), or in a file of its own in PEFT's folders."""
    beside = path.with_name(PEFT_CONFIG)
    try:
        if ADAPTER_METADATA in header:
            config = json.loads(header[ADAPTER_METADATA])
        elif path.name == PEFT_WEIGHTS:
            config = json.loads(beside.read_text(encoding="utf-8"))
        else:
            return {}
    except FileNotFoundError:
        raise MnemonError(f"'{path}' has no {PEFT_CONFIG} beside it, which says its scale: put it there.") from None
    except (ValueError, OSError) as error:
        raise MnemonError(f"The adapter config that belongs to '{path}' cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise MnemonError(f"The adapter config that belongs to '{path}' is no JSON object: fetch it again.")
    return config
