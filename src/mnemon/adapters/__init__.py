"""Deltas of weights, and how they act on a model. The verbs, as in PEFT:

| verb | what it does | undone by |
|---|---|---|
| `attach` | an adapted layer computes W0 x + Δ x; its weight stays as it is | `Attached.remove` |
| `PerSampleAdapters` | attaches several sets of deltas; each row of a batch has its own | `remove` |
| `merge` | adds Δ into the weight: no cost per step | `Merged.unmerge`, bit for bit |
| `sum_deltas`, `mean_deltas` | several sets of deltas combined into one | |
| `save_deltas`, `load_deltas` | to and from flat dictionaries of tensors | |
"""

from mnemon.adapters.attach import Attached, attach
from mnemon.adapters.delta import Delta
from mnemon.adapters.dense import Dense, SummedDeltas, mean_deltas, sum_deltas, zeros
from mnemon.adapters.files import KINDS, load_deltas, save_deltas
from mnemon.adapters.low_rank import LowRank, Product
from mnemon.adapters.masked_low_rank import MaskedLowRank
from mnemon.adapters.merging import Merged, merge
from mnemon.adapters.per_sample import NO_ADAPTER, PerSampleAdapters
from mnemon.adapters.sparse import Sparse
from mnemon.adapters.stored import StoredDeltas

__all__ = [
    "KINDS",
    "NO_ADAPTER",
    "Attached",
    "Delta",
    "Dense",
    "LowRank",
    "MaskedLowRank",
    "Merged",
    "PerSampleAdapters",
    "Sparse",
    "StoredDeltas",
    "SummedDeltas",
    "Product",
    "attach",
    "load_deltas",
    "mean_deltas",
    "merge",
    "save_deltas",
    "sum_deltas",
    "zeros",
]
