"""LoRA files in three formats: kohya's, PEFT's as diffusers writes it, and ComfyUI's.

    kohya       lora_unet_<path_with_underscores>.lora_down.weight, .lora_up.weight, .alpha
    diffusers   unet.<path>.lora_A.weight, .lora_B.weight; the scale is merged into lora_B
    comfy       transformer.<path>.lora_A.weight, .lora_B.weight, .alpha

kohya's and ComfyUI's also have `.diff`: the whole change of a weight.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemon.adapters import LowRank
from mnemon.errors import MnemonError
from mnemon.export.factors import RankSelection, low_rank_of, truncated_svd
from mnemon.export.naming import DIFFUSERS, KOHYA, layer_key
from mnemon.export.selection import Selection
from mnemon.models.layers import every_layer

KOHYA_NAMES, PEFT_NAMES = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")


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


def lora_file(selection: Selection, rank_selection: RankSelection, dtype: torch.dtype) -> LoraFile | None:
    """The selection's change of the weights as a file of its format; None if there is none.

    Low-rank changes keep their factors, unless `rank_selection` asks for a lower rank. The others are exact, as `.diff`
    or, in a format without it, as factors of full rank; or they are approximated by a truncated SVD.

    Raises:
        MnemonError: no tool reads this format for the family, or the change overflows `dtype`.
    """
    naming, kind = selection.naming, selection.kind
    if kind not in naming.formats:
        raise MnemonError(
            f"No tool reads LoRA files in the format '{kind}' for the family '{selection.base.family}': "
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
        factors = _factors(selection, target, matrix, rank_selection)
        key = layer_key(naming, target, kind)
        if factors is None:
            whole.append(target)
            stored = matrix.to(dtype)
            tensors[f"{key}.diff"] = stored.view(layers[target].weight.shape)
        else:
            ranks[target] = factors.rank
            factors = _stored(factors, kind, dtype)
            tensors |= _tensors(key, factors, layers[target], kind)
            stored = factors.matrix()
        norms[target] = ((stored.float() - matrix).norm().item(), matrix.norm().item())
    if not tensors:
        return None
    _check_finite(tensors, dtype)
    off, whole_norm = (sum(pair[index] ** 2 for pair in norms.values()) for index in (0, 1))
    worst = max(norms, key=lambda target: norms[target][0] / norms[target][1])
    worst_error = norms[worst][0] / norms[worst][1]
    return LoraFile(tensors, ranks, tuple(whole), float((off / whole_norm) ** 0.5), (worst, worst_error))


def _factors(selection: Selection, target: str, matrix: Tensor, rank_selection: RankSelection) -> LowRank | None:
    """None where the whole change is to be stored."""
    low_rank = low_rank_of(target, selection.deltas[target], [concept.deltas for concept in selection.learned])
    if rank_selection.exact:
        return low_rank or (truncated_svd(matrix, rank_selection) if selection.kind == DIFFUSERS else None)
    if low_rank is not None and rank_selection.rank is not None and low_rank.rank <= rank_selection.rank:
        return low_rank
    return truncated_svd(matrix, rank_selection)


def _stored(factors: LowRank, kind: str, dtype: torch.dtype) -> LowRank:
    """The factors as stored: in the file's precision, and with the scale merged where the format has no alpha."""
    up, down, scale = factors.up.data.float(), factors.down.data, factors.scale
    if kind == DIFFUSERS:
        up, scale = up * scale, 1.0
    return LowRank(up.cpu().to(dtype), down.cpu().to(dtype), scale)


def _tensors(key: str, factors: LowRank, layer: nn.Module, kind: str) -> dict[str, Tensor]:
    down_name, up_name = KOHYA_NAMES if kind == KOHYA else PEFT_NAMES
    up, down = factors.up.data, factors.down.data
    if isinstance(layer, nn.Conv2d):
        down = down.view(-1, layer.in_channels // layer.groups, *layer.kernel_size)
        up = up[..., None, None]
    tensors = {f"{key}.{down_name}": down, f"{key}.{up_name}": up}
    alpha = torch.tensor(factors.scale * factors.rank)
    return tensors if kind == DIFFUSERS else tensors | {f"{key}.alpha": alpha}


def _check_finite(tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise MnemonError(f"'{key}' is not finite in {dtype}: export without --half, or learn at a lower rate.")
