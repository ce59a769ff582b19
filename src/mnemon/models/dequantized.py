"""Parts of a diffusers folder whose weights are stored quantised: read as whole weights, which methods read and merge
into, on any device. `--weights 8bit` or `4bit` packs them again.

bitsandbytes in 4 bits: two codes a byte, the first in the upper half; a code's value in a table, times the largest
magnitude of its block (QLoRA, Dettmers et al., arXiv 2305.14314), which with double quantisation is an 8-bit code
itself, plus an offset. In 8 bits: rows of int8, times the row's largest magnitude over 127. GGUF: by the package
`gguf`.
"""

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import Tensor, nn

from mnemon.errors import MnemonError

PACKAGES = {"torchao": "torchao", "quanto": "optimum-quanto", "gguf": "gguf", "modelopt": "nvidia-modelopt"}
STATE = ".quant_state.bitsandbytes__"
Tensors = dict[str, Tensor]


def gguf_file(folder: Path) -> Path | None:
    """The GGUF file of a part that has one, and no safetensors.

    Raises:
        MnemonError: there are several.
    """
    found = [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise MnemonError(f"'{folder}' has several GGUF files ({names}): leave the one that is to be read.")
    return found[0] if found else None


def read_quantized(
    folder: Path, config: Mapping[str, Any], origin: tuple[str, str], paths: Iterable[Path], dtype: torch.dtype
) -> nn.Module:
    """The part in `folder` with its weights in `dtype`, by its config and its files.

    Raises:
        MnemonError: a kind of quantisation that is not read, or a package that it needs is not there; tensors are
            missing.
    """
    library, name = origin
    cls = getattr(import_module(library), name)
    paths = list(paths)
    if paths[0].suffix == ".gguf":
        return _from_gguf(folder, cls, library, paths[0], dtype)
    method = str(config["quantization_config"].get("quant_method", "unknown"))
    if not method.startswith("bitsandbytes"):
        package = f" (package {PACKAGES[method]})" if method in PACKAGES else ""
        raise MnemonError(
            f"'{folder}' is quantised with {method}{package}, which mnemon does not read: of quantised weights it "
            "reads those of bitsandbytes and GGUF. Give the folder with whole weights, and pack them by --weights "
            "8bit or 4bit."
        )
    stored = {key: tensor for path in paths for key, tensor in load_file(path).items()}
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    state = {key: tensor.to(dtype) for key, tensor in _whole(folder, stored).items()}
    if library == "transformers":
        module, info = cls.from_pretrained(
            None, config=cls.config_class(**plain), state_dict=state, dtype=dtype, output_loading_info=True
        )
        return _complete(folder, module, info["missing_keys"])
    with init_empty_weights():
        module = cls.from_config(plain)
    missing, unknown = module.load_state_dict(state, strict=False, assign=True)
    return _complete(folder, module, [*missing, *unknown])


def _complete(folder: Path, module: nn.Module, wrong: Iterable[str]) -> nn.Module:
    left = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
    if wrong := sorted({*wrong, *left}):
        raise MnemonError(
            f"The weights in '{folder}' do not fit its config in {len(wrong)} tensors, such as '{wrong[0]}': fetch "
            "both again from one place."
        )
    return module


def _whole(folder: Path, stored: Tensors) -> Tensors:
    """The weights in fp32, and what is stored whole as it is."""
    state = {}
    aside = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format")
    for key, tensor in stored.items():
        if STATE in key or key.endswith(aside):
            continue
        codes = [other for other in stored if other.startswith(f"{key}{STATE}")]
        if codes:
            state[key] = _from_4bit(key, stored, json.loads(bytes(stored[codes[0]].tolist())))
        elif tensor.dtype == torch.int8:
            scales = stored.get(f"{key.removesuffix('.weight')}.SCB")
            if scales is None:
                raise MnemonError(f"'{folder}' has 8-bit weights '{key}' without their scales: fetch it again.")
            state[key] = tensor.float() * (scales.float() / 127)[:, None]
        else:
            state[key] = tensor
    return state


def _from_4bit(key: str, stored: Tensors, facts: Mapping[str, Any]) -> Tensor:
    packed = stored[key].flatten()
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().int()
    largest = stored[f"{key}.absmax"]
    if f"{key}.nested_absmax" in stored:
        nested = _scaled(stored[f"{key}.nested_quant_map"][largest.int()], stored[f"{key}.nested_absmax"],
                         facts["nested_blocksize"])  # fmt: skip
        largest = nested + facts["nested_offset"]
    shape = torch.Size(facts["shape"])
    values = stored[f"{key}.quant_map"][codes[: shape.numel()]]
    return _scaled(values, largest, facts["blocksize"]).reshape(shape)


def _scaled(values: Tensor, scales: Tensor, block: int) -> Tensor:
    """Values (n,), each times the scale of its block."""
    return values.float() * scales.float().repeat_interleave(block)[: len(values)]


def _from_gguf(folder: Path, cls: Any, library: str, path: Path, dtype: torch.dtype) -> nn.Module:
    try:
        gguf = import_module("gguf")
    except ImportError:
        raise MnemonError(
            f"'{path}' is a GGUF file, which needs the extra 'quant': pip install 'mnemon[quant]'. Or give the folder "
            "with whole weights, and pack them by --weights 8bit or 4bit."
        ) from None
    if library != "diffusers" or not hasattr(cls, "from_single_file"):
        raise MnemonError(
            f"'{path}' is a GGUF file, which is read for denoisers only: give a {cls.__name__} as safetensors."
        )
    tensors = {
        one.name: torch.from_numpy(gguf.quants.dequantize(one.data, one.tensor_type).copy()).to(dtype)
        for one in gguf.GGUFReader(str(path)).tensors
    }
    count = sum(tensor.numel() for tensor in tensors.values())
    module = cls.from_single_file(tensors, config=str(folder), dtype=dtype, local_files_only=True)
    own = sum(tensor.numel() for tensor in module.state_dict().values())
    if count != own:
        raise MnemonError(f"'{path}' has {count} weights, its {cls.__name__} {own}: its config is of another model.")
    return _complete(folder, module, [])
