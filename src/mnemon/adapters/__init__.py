"""How a weight may change: kinds of deltas, and putting them to work beside the weights or inside them."""

from mnemon.adapters.attach import Attached, attach
from mnemon.adapters.delta import Delta
from mnemon.adapters.dense import Dense, mean_deltas, sum_deltas, zeros
from mnemon.adapters.files import KINDS, load_deltas, save_deltas
from mnemon.adapters.low_rank import LowRank
from mnemon.adapters.masked_low_rank import MaskedLowRank
from mnemon.adapters.merging import Merged, merge
from mnemon.adapters.per_sample import NOWHERE, Routed
from mnemon.adapters.sparse import Sparse

__all__ = [
    "KINDS",
    "Attached",
    "Delta",
    "Dense",
    "Merged",
    "LowRank",
    "NOWHERE",
    "MaskedLowRank",
    "Routed",
    "Sparse",
    "attach",
    "merge",
    "load_deltas",
    "mean_deltas",
    "save_deltas",
    "sum_deltas",
    "zeros",
]
