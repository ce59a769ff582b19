"""LoRA-merge: concepts are learned apart, and their changes averaged (LoRA-M in the tables of arXiv 2410.17594)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnemon.adapters import Delta, mean_deltas
from mnemon.methods.base import TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.models.base import Base


@dataclass(frozen=True)
class LoraMerge(Lora):
    """LoRA as in `lora`, but every concept is learned on the bare base, and the model of n concepts is their mean:

        W = W_0 + 1/n sum_t A_t B_t        a mean of products, not a product of means

    Of each concept's change an n-th is left, beside an n-th of every other.
    """

    name: ClassVar[str] = "lora-merge"
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2106.09685, averaged, as in the comparisons of arXiv 2410.17594"

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        return dict(mean_deltas([one.deltas for one in learned]))
