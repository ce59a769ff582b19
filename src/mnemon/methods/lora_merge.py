"""LoRA-merge: concepts trained independently, their changes averaged (LoRA-M in the tables of arXiv 2410.17594)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnemon.adapters import Delta, mean_deltas
from mnemon.methods.base import TrainedConcept
from mnemon.methods.low_rank import LoraMethod
from mnemon.models.base import Base


@dataclass(frozen=True)
class LoraMerge(LoraMethod):
    """LoRA as in `lora`, but every concept is trained on the bare base, and the model of n concepts is their mean:

        W = W_0 + 1/n sum_t A_t B_t        a mean of products, not a product of means

    Each concept's change is scaled by 1/n.
    """

    name: ClassVar[str] = "lora-merge"
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2106.09685, averaged, as in the comparisons of arXiv 2410.17594"

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        return dict(mean_deltas([concept.deltas for concept in learned]))
