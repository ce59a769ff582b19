"""LoRA files in three formats: kohya's, PEFT's as diffusers writes it, and ComfyUI's.

    kohya       lora_unet_<path_with_underscores>.lora_down.weight, .lora_up.weight, .alpha; the original path for SDXL
    diffusers   unet.<path>.lora_A.weight, .lora_B.weight; the scale is merged into lora_B
    comfy       transformer.<path>.lora_A.weight, .lora_B.weight, .alpha

kohya's and ComfyUI's also have `.diff`: the whole change of a weight. Their alpha is the same for all layers of a file:
diffusers' readers find no other, and take the most frequent one for every layer.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemon.adapters import LowRank
from mnemon.errors import MnemonError
from mnemon.export.checkpoint import original_name, unet_names
from mnemon.export.factors import RankSelection, low_rank_of, truncated_svd
from mnemon.export.naming import CLIP, COMFY, DIFFUSERS, KOHYA, Naming, layer_key, split_target
from mnemon.export.selection import Selection
from mnemon.models import Base
from mnemon.models.layers import every_layer

KOHYA_NAMES, PEFT_NAMES = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")
TEXT_NAMES = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
ATTENTION = re.compile(r".+\.(q|k|v|out)_proj")


@dataclass(frozen=True)
class LoraFile:
    """The contents of a LoRA file.

    Attributes:
        tensors: by key.
        ranks: target module -> rank, of those stored as factors.
        alpha: of all layers; None in a format without it.
        whole: target modules whose whole change is stored, under `.diff`.
        error: relative error of the file: the Frobenius norm of its difference from the change over that of the
            change, over all target modules; measured on the tensors as stored.
        worst: the target module with the largest relative error, and that error.
    """

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    alpha: float | None
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
    layers, keys = every_layer(selection.base), layer_keys(selection.base, naming, kind)
    factors = _factors_by_target(selection, rank_selection)
    if not factors:
        return None
    low_rank = {target: one for target, one in factors.items() if one is not None}
    alpha = None if kind == DIFFUSERS else _common_alpha(low_rank)
    tensors: dict[str, Tensor] = {}
    norms: dict[str, tuple[float, float]] = {}
    for target in factors:  # one layer's matrix at a time: all of them are as large as the base
        matrix, key = _matrix(selection, target), keys[target]
        if target in low_rank:
            one = _stored(low_rank[target], alpha, dtype)
            names = _names(naming, kind, target, low_rank)
            tensors |= _tensors(key, names, one, layers[target], alpha)
            stored = one.matrix()
        else:
            stored = matrix.to(dtype)
            tensors[f"{key}.diff"] = stored.view(layers[target].weight.shape)
        norms[target] = ((stored.float() - matrix).norm().item(), matrix.norm().item())
    _check_finite(tensors, dtype)
    ranks = {target: one.rank for target, one in low_rank.items()}
    return LoraFile(tensors, ranks, alpha, tuple(target for target in factors if target not in ranks), *_errors(norms))


def layer_keys(base: Base, naming: Naming, kind: str) -> dict[str, str]:
    """Target module -> its key in a file, without the ending, for every layer that a file may change. Of SDXL's U-Net
    kohya's scripts know the original names only."""
    originals = unet_names(base.denoiser) if kind == KOHYA and base.family == "sdxl" else {}
    return {target: layer_key(naming, original_name(target, originals) or target, kind) for target in every_layer(base)}


def _errors(norms: Mapping[str, tuple[float, float]]) -> tuple[float, tuple[str, float]]:
    """The relative error over all target modules, and the largest of one with its name; `norms` are those of the
    difference and of the change."""
    off, whole = (sum(pair[index] ** 2 for pair in norms.values()) for index in (0, 1))
    worst = max(norms, key=lambda target: norms[target][0] / norms[target][1])
    return float((off / whole) ** 0.5), (worst, norms[worst][0] / norms[worst][1])


def _matrix(selection: Selection, target: str) -> Tensor:
    return selection.deltas[target].matrix().detach().cpu()


def _factors_by_target(selection: Selection, rank_selection: RankSelection) -> dict[str, LowRank | None]:
    """The factors of every layer that is changed; None where the whole change is to be stored."""
    factors = {}
    for target in selection.deltas:
        matrix = _matrix(selection, target)
        if matrix.any():
            factors[target] = _factors(selection, target, matrix, rank_selection)
    return factors


def _factors(selection: Selection, target: str, matrix: Tensor, rank_selection: RankSelection) -> LowRank | None:
    """None where the whole change is to be stored."""
    low_rank = low_rank_of(target, selection.deltas[target], [concept.deltas for concept in selection.composed])
    if rank_selection.exact:
        return low_rank or (truncated_svd(matrix, rank_selection) if selection.kind == DIFFUSERS else None)
    if low_rank is not None and rank_selection.rank is not None and low_rank.rank <= rank_selection.rank:
        return low_rank
    return truncated_svd(matrix, rank_selection)


def _common_alpha(factors: Mapping[str, LowRank]) -> float | None:
    """The alpha that most of the layers have."""
    alphas = Counter(one.scale * one.rank for one in factors.values())
    return alphas.most_common(1)[0][0] if alphas else None


def _stored(factors: LowRank, alpha: float | None, dtype: torch.dtype) -> LowRank:
    """The factors as stored: in the file's precision, and with what the file's alpha leaves of the scale merged."""
    scale = 1.0 if alpha is None else alpha / factors.rank
    up = factors.up.data.float() * (factors.scale / scale)
    return LowRank(up.cpu().to(dtype), factors.down.data.cpu().to(dtype), scale)


def _names(naming: Naming, kind: str, target: str, targets: Iterable[str]) -> tuple[str, str]:
    """How the file names a layer's two factors. diffusers reads a CLIP encoder in PEFT's names only if some layer is an
    attention's; there is another spelling for the others."""
    if kind == KOHYA:
        return KOHYA_NAMES
    part, _ = split_target(naming, target)
    if kind == COMFY or naming.encoders.get(part) not in CLIP:
        return PEFT_NAMES
    beside = (path for other, path in (split_target(naming, one) for one in targets) if other == part)
    return PEFT_NAMES if any(ATTENTION.fullmatch(path) for path in beside) else TEXT_NAMES


def _tensors(
    key: str, names: tuple[str, str], factors: LowRank, layer: nn.Module, alpha: float | None
) -> dict[str, Tensor]:
    up, down = factors.up.data, factors.down.data
    if isinstance(layer, nn.Conv2d):
        down = down.view(-1, layer.in_channels // layer.groups, *layer.kernel_size)
        up = up[..., None, None]
    tensors = {f"{key}.{names[0]}": down, f"{key}.{names[1]}": up}
    return tensors if alpha is None else tensors | {f"{key}.alpha": torch.tensor(alpha)}


def _check_finite(tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise MnemonError(f"'{key}' is not finite in {dtype}: export without --half, or learn at a lower rate.")
