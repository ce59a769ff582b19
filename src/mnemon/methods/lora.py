"""Sequential LoRA: what most people do today, and the baseline of every continual method."""

from dataclasses import dataclass
from typing import ClassVar

from mnemon.methods.low_rank import LoraMethod


@dataclass(frozen=True)
class Lora(LoraMethod):
    """Low-rank adaptation (arXiv 2106.09685) of the cross-attention keys and values, one concept after another, with a
    trained token:

        W_t = W_{t-1} + A_t B_t        A_t in R^{D1 x r} (`up`), starts at zero;  B_t in R^{r x D2} (`down`), random

    W_{t-1} holds all earlier concepts and is frozen; nothing protects it.
    """

    name: ClassVar[str] = "lora"
    source: ClassVar[str] = "arXiv 2106.09685, trained in sequence"
