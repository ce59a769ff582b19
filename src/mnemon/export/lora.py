"""LoRA files in three formats: kohya's, PEFT's as diffusers writes it, and ComfyUI's.

    kohya       lora_unet_<path_with_underscores>.lora_down.weight, .lora_up.weight, .alpha
    diffusers   unet.<path>.lora_A.weight, .lora_B.weight; the scale is merged into lora_B
    comfy       transformer.<path>.lora_A.weight, .lora_B.weight, .alpha

kohya's and ComfyUI's also have `.diff`: the whole change of a weight.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.export.factors import Factors, RankSelection, low_rank_of, truncated_svd
from mnemon.export.naming import DIFFUSERS, KOHYA, Naming, layer_key, split_target
from mnemon.export.selection import Selection
from mnemon.models.layers import every_layer

DOWN_UP = {KOHYA: ("lora_down.weight", "lora_up.weight")}
PEFT_DOWN_UP = ("lora_A.weight", "lora_B.weight")


@dataclass(frozen=True)
class LoraFile:
    """The contents of a LoRA file.

    Attributes:
        tensors: by key.
        ranks: target module -> rank, of those stored as factors.
        whole: target modules whose whole change is stored, under `.diff`.
        error: relative error of the file: the Frobenius norm of its difference from the change over that of the
            change, over all target modules; measured on the tensors as stored.
        worst: the target module with the largest relative error, and that error.
    """

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    whole: tuple[str, ...]
    error: float
    worst: tuple[str, float]


def lora_file(
    selection: Selection, naming: Naming, format: str, rank_selection: RankSelection, dtype: torch.dtype
) -> LoraFile | None:
    """The selection's change of the weights as a file of this format; None if there is none.

    Low-rank changes keep their factors, unless `rank_selection` asks for a lower rank. The others are exact, as `.diff`
    or, in a format without it, as factors of full rank; or they are approximated by a truncated SVD.

    Raises:
        MnemonError: no tool reads this format for the family, or the change overflows `dtype`.
    """
    if format not in naming.formats:
        raise MnemonError(
            f"No tool reads LoRA files in the format '{format}' for the family '{selection.base.family}': "
            f"choose {' or '.join(naming.formats)}."
        )
    layers = every_layer(selection.base)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    norms: dict[str, tuple[float, float]] = {}
    whole = []
    for target, delta in selection.deltas.items():
        matrix = delta.matrix().detach().cpu()
        if not matrix.any():
            continue
        factors = _factors(selection, target, matrix, rank_selection, exact_as_factors=format == DIFFUSERS)
        key = layer_key(naming, target, format)
        if factors is None:
            whole.append(target)
            stored = matrix.to(dtype)
            tensors[f"{key}.diff"] = stored.view(layers[target].weight.shape)
        else:
            ranks[target] = factors.rank
            factors = _stored(factors, format, dtype)
            tensors |= _tensors(key, factors, layers[target], format)
            stored = factors.matrix()
        norms[target] = ((stored.float() - matrix).norm().item(), matrix.norm().item())
    if not tensors:
        return None
    _check_finite(tensors, dtype)
    worst = max(norms, key=lambda target: norms[target][0] / norms[target][1])
    return LoraFile(tensors, ranks, tuple(whole), _relative_error(norms), (worst, norms[worst][0] / norms[worst][1]))


def adapter_metadata(naming: Naming, ranks: Mapping[str, int]) -> str:
    """The `LoraConfig` of each part as diffusers writes it into a file's header; alpha is the rank."""
    parts: dict[str, dict[str, int]] = {}
    for target, rank in ranks.items():
        part, path = split_target(naming, target)
        parts.setdefault(part, {})[path] = rank
    facts: dict[str, object] = {}
    for part, by_path in parts.items():
        most = max(by_path.values())
        other = {path: rank for path, rank in by_path.items() if rank != most}
        config = {"r": most, "lora_alpha": most, "target_modules": list(by_path), "rank_pattern": other}
        facts |= {f"{part}.{key}": value for key, value in {**config, "alpha_pattern": other}.items()}
    return json.dumps(facts, indent=2, sort_keys=True)


def _factors(
    selection: Selection, target: str, matrix: Tensor, rank_selection: RankSelection, exact_as_factors: bool
) -> Factors | None:
    """None where the whole change is to be stored."""
    own = low_rank_of(target, selection.deltas[target], [concept.deltas for concept in selection.learned])
    if rank_selection.exact:
        return own or (truncated_svd(matrix, rank_selection) if exact_as_factors else None)
    if own is not None and rank_selection.rank is not None and own.rank <= rank_selection.rank:
        return own
    return truncated_svd(matrix, rank_selection)


def _stored(factors: Factors, format: str, dtype: torch.dtype) -> Factors:
    """The factors as stored: in the file's precision, and with alpha merged where the format has none."""
    up, alpha = factors.up.float(), factors.alpha
    if format == DIFFUSERS:
        up, alpha = up * (alpha / factors.rank), float(factors.rank)
    return Factors(up.cpu().to(dtype), factors.down.cpu().to(dtype), alpha)


def _tensors(key: str, factors: Factors, layer: nn.Module, format: str) -> dict[str, Tensor]:
    down_name, up_name = DOWN_UP.get(format, PEFT_DOWN_UP)
    up, down = factors.up, factors.down
    if isinstance(layer, nn.Conv2d):
        down = down.view(-1, layer.in_channels // layer.groups, *layer.kernel_size)
        up = up[..., None, None]
    tensors = {f"{key}.{down_name}": down, f"{key}.{up_name}": up}
    return tensors if format == DIFFUSERS else tensors | {f"{key}.alpha": torch.tensor(factors.alpha)}


def _relative_error(norms: Mapping[str, tuple[float, float]]) -> float:
    off, whole = (sum(pair[index] ** 2 for pair in norms.values()) for index in (0, 1))
    return float((off / whole) ** 0.5)


def _check_finite(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise MnemonError(f"'{key}' is not finite in {dtype}: export without --half, or learn at a lower rate.")
