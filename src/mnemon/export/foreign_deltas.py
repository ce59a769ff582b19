"""Changes of weights as other tools store them.

| kind | Δ | scale |
|---|---|---|
| LoRA (arXiv 2106.09685) | scale · up down; a convolution may have a kernel `mid` between them | alpha / rank |
| LoHa (FedPara, arXiv 2108.06098) | scale · (w1a w1b) ∘ (w2a w2b) | alpha / rank |
| LoKr (LyCORIS, arXiv 2309.14859) | scale · w1 ⊗ w2, each whole or as factors | alpha / rank; 1 if both are whole |
| full | diff | 1 |

In LoHa and LoKr a kernel t, (rank, rank, height, width), may stand between factors of a convolution (CP
decomposition), which are then (rank, d_out) and (rank, d_in).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mnemon.adapters import Delta, Dense, LowRank
from mnemon.adapters.low_rank import check_factors
from mnemon.export.formats import ALPHA, DOWN, LOHA, LOKR, MID, UP, WHOLE

Tensors = Mapping[str, Tensor]
Scale = Callable[[int | None], float]
"""The scale for a rank; None where there is no factor that has one."""


@dataclass(frozen=True)
class Factors:
    """scale · up down, with `up` (d_out, rank) and `down` (rank, d_in)."""

    up: Tensor
    down: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]


@dataclass(frozen=True)
class Matrix:
    """The change (d_out, d_in) itself."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]


Change = Factors | Matrix


class Unfit(Exception):
    """Why a layer's tensors are no change of a weight; a part of a sentence."""


class Misshapen(Unfit):
    """The shapes of a layer's tensors do not go together."""


def change_of(tensors: Tensors, config_scale: Scale) -> Change:
    """The change of one layer.

    Args:
        tensors: by kind; convolutions' in their four dimensions.
        config_scale: the scale where the file has no alpha for the layer.

    Raises:
        Unfit: tensors are missing, too many, or do not fit together.
    """
    kinds = tensors.keys() - {ALPHA}
    builders: dict[str, tuple[Callable[[Tensors, Scale], Change], frozenset[str]]] = {
        DOWN: (_lora, frozenset((DOWN, UP, MID))),
        UP: (_lora, frozenset((DOWN, UP, MID))),
        MID: (_lora, frozenset((DOWN, UP, MID))),
        WHOLE: (_full, frozenset((WHOLE,))),
        **dict.fromkeys(LOHA, (_loha, frozenset(LOHA))),
        **dict.fromkeys(LOKR, (_lokr, frozenset(LOKR))),
    }
    if not kinds:
        raise Unfit("an alpha without the factors that it belongs to")
    for kind in kinds:
        if not tensors[kind].is_floating_point():
            raise Unfit(
                f"numbers stored as {str(tensors[kind].dtype).removeprefix('torch.')}, not as floating-point numbers"
            )
    build, allowed = builders[min(kinds)]
    if not kinds <= allowed:
        raise Unfit("changes of one layer in several ways at once")
    try:
        return build(tensors, partial(_scale, tensors.get(ALPHA), config_scale))
    except KeyError as missing:
        raise Unfit(f"factors without the {missing.args[0]} that belongs to them") from None
    except (RuntimeError, ValueError, IndexError):
        shapes = ", ".join(f"{kind} {tuple(tensors[kind].shape)}" for kind in sorted(kinds))
        raise Misshapen(f"factors that do not fit together ({shapes})") from None


def _scale(alpha: Tensor | None, config_scale: Scale, rank: int | None) -> float:
    if alpha is None:
        return config_scale(rank)
    if alpha.numel() != 1:
        raise Unfit(f"an alpha of {alpha.numel()} numbers instead of one")
    return 1.0 if rank is None else float(alpha.item()) / rank


def _lora(tensors: Tensors, scale: Scale) -> Change:
    up, down = tensors[UP].flatten(1), tensors[DOWN]
    rank = up.shape[1]
    if MID in tensors:
        down = torch.einsum("ij...,jr->ir...", tensors[MID].float(), down.flatten(1).float())
    down = down.flatten(1)
    if down.shape[0] != rank:
        raise ValueError("ranks differ")
    if not rank:
        raise Unfit("factors of rank 0, which change nothing")
    return Factors(up, down, scale(rank))


def _full(tensors: Tensors, _: Scale) -> Change:
    return Matrix(tensors[WHOLE].flatten(1))  # the tools that write alpha beside it do not use it


def _loha(tensors: Tensors, scale: Scale) -> Change:
    w1a, w1b, w2a, w2b = (tensors[f"hada_{name}"].float() for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    size = scale(w1b.shape[0])
    if "hada_t1" in tensors or "hada_t2" in tensors:
        first, second = _cp(tensors["hada_t1"], w1a, w1b), _cp(tensors["hada_t2"], w2a, w2b)
        return Matrix(size * (first * second).flatten(1))
    # (A B) ∘ (C D) = Σ_ij (a_i ∘ c_j) (b_i ∘ d_j)ᵀ, of the product of both ranks
    up = (w1a[:, :, None] * w2a[:, None, :]).flatten(1)
    down = (w1b[:, None, :] * w2b[None, :, :]).flatten(0, 1)
    if w1a.shape[1] != w1b.shape[0] or w2a.shape[1] != w2b.shape[0]:
        raise ValueError("ranks differ")
    return _smaller(up, down, size)


def _lokr(tensors: Tensors, scale: Scale) -> Change:
    given = {name.removeprefix("lokr_"): tensor.float() for name, tensor in tensors.items() if name in LOKR}
    _check_one_way(given)
    w1 = given["w1"] if "w1" in given else given["w1_a"] @ given["w1_b"]
    rank = next((given[name].shape[0] for name in ("w2_b", "w1_b") if name in given), None)
    size = scale(rank)
    if "w2" in given or "t2" in given:
        w2 = given["w2"] if "w2" in given else _cp(given["t2"], given["w2_a"], given["w2_b"])
        return Matrix(size * torch.kron(w1.reshape(*w1.shape, *[1] * (w2.ndim - 2)), w2).flatten(1))
    # W1 ⊗ (A B) = (L ⊗ A) (R ⊗ B) for W1 = L R
    rows, columns = w1.shape
    pairs = [(w1, torch.eye(columns)), (torch.eye(rows), w1)]
    pairs += [(given["w1_a"], given["w1_b"])] if "w1" not in given else []
    left, right = min(pairs, key=lambda pair: pair[0].shape[1])
    return _smaller(torch.kron(left, given["w2_a"]), torch.kron(right, given["w2_b"]), size)


def _check_one_way(given: Tensors) -> None:
    """Each of the two is given whole or as factors, not both."""
    for whole, factors in (("w1", ("w1_a", "w1_b")), ("w2", ("w2_a", "w2_b", "t2"))):
        if whole in given and any(factor in given for factor in factors):
            raise Unfit(f"lokr_{whole} whole and as factors")


def _cp(kernel: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A convolution's weight (d_out, d_in, height, width) of a (rank, d_out), b (rank, d_in) and the kernel."""
    return torch.einsum("ijkl,ip,jr->prkl", kernel.float(), a.float(), b.float()).contiguous()


def _smaller(up: Tensor, down: Tensor, scale: float) -> Change:
    """Both forms are exact: the one with fewer numbers. Raises ValueError where the ranks differ."""
    check_factors(up, down)
    if up.numel() + down.numel() < up.shape[0] * down.shape[1]:
        return Factors(up, down, scale)
    return Matrix(scale * (up @ down))


def deltas_of(change: Change, rows: Sequence[tuple[tuple[int, int], ...]]) -> list[Delta]:
    """The change of each part's rows, (first, last + 1) each, as deltas that share no memory."""
    if len(rows) == 1 == len(rows[0]):
        return [LowRank(change.up, change.down, change.scale) if isinstance(change, Factors) else Dense(change.values)]

    def taken(matrix: Tensor, intervals: tuple[tuple[int, int], ...]) -> Tensor:
        return torch.cat([matrix[first:last] for first, last in intervals])

    if isinstance(change, Factors):
        return [LowRank(taken(change.up, one), change.down.clone(), change.scale) for one in rows]
    return [Dense(taken(change.values, one)) for one in rows]
