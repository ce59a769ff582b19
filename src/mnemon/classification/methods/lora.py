"""Sequential LoRA, and the bound that has all tasks at once."""

from dataclasses import dataclass
from typing import ClassVar

from mnemon.classification.methods.adapters import LowRankMethod


@dataclass(frozen=True)
class Lora(LowRankMethod):
    """Low-rank changes, one task after another; nothing protects the earlier ones:

    W_t = W_{t-1} + A_t B_t        A_t (D1, r) starts at zero, B_t (r, D2) at random
    """

    name: ClassVar[str] = "lora"
    source: ClassVar[str] = "arXiv 2106.09685, trained in sequence"
