"""All tasks together: what the same change could learn if tasks did not come one after another."""

from dataclasses import dataclass
from typing import ClassVar

from mnemon.classification.methods.adapters import LowRankMethod


@dataclass(frozen=True)
class Joint(LowRankMethod):
    """The change of `lora`, with its schedule, trained on the images of all tasks mixed: the bound. All images have to
    be there at once.
    """

    name: ClassVar[str] = "joint"
    source: ClassVar[str] = "arXiv 2106.09685, on all tasks together: the offline bound"
    trains_jointly: ClassVar[bool] = True
