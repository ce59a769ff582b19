"""LoRA-compose: concepts are trained independently, and the predictions of their models averaged at every denoising
step (LoRA-C in the tables of arXiv 2410.17594)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.methods.base import Over, TrainedConcept, named
from mnemon.methods.low_rank import LoraMethod
from mnemon.models.base import Base


@dataclass(frozen=True)
class LoraCompose(LoraMethod):
    """LoRA as in `lora`, but every concept is trained on the bare base, and an image is sampled from several models:

        f(z_s, s, prompt) = 1/|S| sum_{t in S} f_t(z_s, s, prompt)        f_t has the weights W_0 + A_t B_t

    at every denoising step, with the tokens of all concepts. S are the concepts that the prompt names, or all of them,
    as the code of arXiv 2410.17594 has it; where S is empty the bare base is sampled. An image takes |S| times as long,
    and the concepts are never merged into one model.
    """

    name: ClassVar[str] = "lora-compose"
    per_prompt: ClassVar[bool] = True
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2106.09685, predictions averaged, as in the comparisons of arXiv 2410.17594"

    over: Over = "prompted"
    """S: average over the concepts that the prompt names, or over all concepts for every prompt."""

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        """Raises:
        MnemonError: the prompt needs several predictions, which no single change of the weights gives.
        """
        branches = self.branches(base, learned, prompt or "")
        if len(branches) > 1:
            raise MnemonError(
                "The method 'lora-compose' averages the predictions of its concepts, which no one change of the "
                "weights gives: compose a prompt that names one concept, or merge them with lora-merge."
            )
        return branches[0]

    def branches(self, base: Base, learned: Sequence[TrainedConcept], prompt: str) -> list[dict[str, Delta]]:
        active = learned if self.over == "all" else named(learned, prompt)
        return [dict(concept.deltas) for concept in active] or [{}]
