"""LoRA files of cloneofsimo/lora, in which layers are numbered in the order of PyTorch's `named_modules`.

unet:0:up, unet:0:down, text_encoder:0:up, ...    the header names the classes of modules that were counted
<s1>                                              a token's vector, marked in the header
"""

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mnemon.adapters import Delta, LowRank
from mnemon.adapters.checks import matrix_shape
from mnemon.errors import MnemonError
from mnemon.export.account import Account
from mnemon.export.foreign_tokens import fitting
from mnemon.export.weight_file import WeightFile
from mnemon.models import Base

KEY = re.compile(r"(unet|text_encoder):(\d+):(up|down)")
EMBEDDING = "<embed>"
CLASSES = {"unet": ["CrossAttention", "Attention", "GEGLU"], "text_encoder": ["CLIPAttention"]}
ORDERS = (("attn1", "ff", "attn2"), ("attn1", "attn2", "ff"))
"""Order of a transformer block's modules, before and since diffusers 0.15."""


def is_cloneofsimo(file: WeightFile) -> bool:
    return any(KEY.fullmatch(key) for key in file.tensors)


def read_cloneofsimo(account: Account, base: Base) -> tuple[dict[str, Delta], dict[str, Tensor] | None]:
    """Changes by target module, and the vectors of the tokens, in the order of their names, as those of one concept.
    The order in which layers were counted follows from their shapes.

    Raises:
        MnemonError: the numbers do not fit the base.
    """
    file = account.file
    deltas: dict[str, Delta] = {}
    for part in ("unet", "text_encoder"):
        pairs = _pairs(file, part)
        if pairs:
            classes = re.findall(r"\w+", file.header.get(part, "")) or CLASSES[part]  # a JSON list of names
            targets = _target_modules(file, base, part, classes, list(pairs.values()))
            for target, (number, (up, down)) in zip(targets, pairs.items(), strict=True):
                account.carry([f"{part}:{number}:up", f"{part}:{number}:down"], target)
                deltas[target] = LowRank(up, down)
    return deltas, _read_tokens(account, base)


def _read_tokens(account: Account, base: Base) -> dict[str, Tensor] | None:
    file = account.file
    tokens = sorted(key for key in account.open if file.header.get(key) == EMBEDDING and file.tensors[key].ndim)
    rows = [file.tensors[token].reshape(-1, file.tensors[token].shape[-1]) for token in tokens]
    if not rows or len({row.shape[1] for row in rows}) > 1:
        return None
    return fitting(account, base, {"text_encoder": tokens}, {"text_encoder": torch.cat(rows)})


def _pairs(file: WeightFile, part: str) -> dict[int, tuple[Tensor, Tensor]]:
    """Number -> (up, down)."""
    numbers = sorted({int(match[2]) for key in file.tensors if (match := KEY.fullmatch(key)) and match[1] == part})
    try:
        return {
            number: (file.tensors[f"{part}:{number}:up"], file.tensors[f"{part}:{number}:down"]) for number in numbers
        }
    except KeyError as error:
        raise MnemonError(f"'{file.path}' lacks the tensor {error}: the file is broken.") from None


def _target_modules(
    file: WeightFile, base: Base, part: str, classes: Sequence[str], pairs: Sequence[tuple[Tensor, Tensor]]
) -> list[str]:
    shapes = [(up.shape[0], down.shape[1]) for up, down in pairs]
    for order in ORDERS:
        layers = list(_counted(_model(base, part), set(classes), order))
        if [matrix_shape(layer) for _, layer in layers] == shapes:
            prefix = "" if part == "unet" else f"{part}."
            return [f"{prefix}{path.removeprefix('text_model.')}" for path, _ in layers]
    raise MnemonError(
        f"'{file.path}' numbers its layers, and its {len(pairs)} of the {part} do not fit '{base.name}' "
        f"({base.family}): it was made for another base."
    )


def _model(base: Base, part: str) -> nn.Module:
    if part == "unet":
        return base.denoiser
    models = {encoder.name: encoder.model for encoder in getattr(base, "encoders", [])}
    return models[part]


def _counted(model: nn.Module, classes: set[str], order: Sequence[str]) -> Iterator[tuple[str, nn.Linear]]:
    """(path, layer) of the linear layers inside modules of these classes, in the order of their numbers."""
    if "CrossAttention" in classes:
        classes = classes | {"Attention"}  # its name since diffusers 0.15
    for path, module in _in_order("", model, order):
        if type(module).__name__ in classes:
            for name, layer in module.named_modules():
                if isinstance(layer, nn.Linear):
                    yield f"{path}.{name}" if name else path, layer


def _in_order(path: str, module: nn.Module, order: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """The module and all below it, parents first, with the modules of a transformer block in this order."""
    yield path, module
    children = dict(module.named_children())
    if order[0] in children:
        children = {name: children[name] for name in order if name in children}
    for name, child in children.items():
        yield from _in_order(f"{path}.{name}".lstrip("."), child, order)
