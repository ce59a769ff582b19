"""Each concept alone on a fresh base: an upper bound of what can be kept when concepts share a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.methods.base import TrainedConcept, named
from mnemon.methods.low_rank import LoraMethod
from mnemon.models.base import Base


@dataclass(frozen=True)
class Single(LoraMethod):
    """LoRA as in `lora`, but every concept is trained on the bare base, and a prompt is sampled with the change of the
    one concept that it names:

        W(prompt) = W_0 + A_t B_t   where the prompt names concept t,   W_0   where it names none

    Concepts never meet, so nothing is forgotten: an upper bound, not one model of all concepts. A prompt that names two
    concepts has no such model and is refused.
    """

    name: ClassVar[str] = "single"
    per_prompt: ClassVar[bool] = True
    order_free: ClassVar[bool] = True
    on_bare_base: ClassVar[bool] = True
    source: ClassVar[str] = "arXiv 2106.09685, each concept apart from the others: an upper bound"

    def compose(self, base: Base, learned: Sequence[TrainedConcept], prompt: str | None = None) -> dict[str, Delta]:
        """Raises:
        MnemonError: the prompt names several concepts.
        """
        active = named(learned, prompt)
        if len(active) > 1:
            names = " and ".join(f"<{concept.name}>" for concept in active)
            raise MnemonError(
                f"The prompt '{prompt}' names {names}, but with the method 'single' every concept has a model of its "
                "own: name one, or learn them with a method that composes concepts, such as stamina."
            )
        return dict(active[0].deltas) if active else {}
