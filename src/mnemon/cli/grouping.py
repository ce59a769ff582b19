"""Which concepts of a command are trained in the same steps."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mnemon.cli.config import ConceptConfig
from mnemon.settings import current_names

if TYPE_CHECKING:
    from mnemon.data import Concept
    from mnemon.training import TrainingSettings


@dataclass(frozen=True)
class Wanted:
    """A concept to be learned, its references, and what was asked for."""

    concept: "Concept"
    references: "Concept | None"
    wanted: ConceptConfig

    def training_of(self, settings: "TrainingSettings") -> "TrainingSettings":
        """The settings with the concept's own.

        Raises:
            MnemonError: one is unknown or does not fit.
        """
        what = f"The training of '{self.concept.name}'"
        whole = asdict(settings)
        return type(settings)(**{**whole, **current_names(self.wanted.training, list(whole), what)})

    @property
    def terms(self) -> Any:
        """What concepts of one group share."""
        return dict(self.wanted.training), self.wanted.num_class_images


def grouped(concepts: Sequence[Wanted], method: Any, together: int) -> list[list[Wanted]]:
    """In order; with methods that train concepts in the same steps, `together` of one kind of training, or all."""
    size = len(concepts) if method.trains_jointly else together if method.concurrent else 1
    groups: list[list[Wanted]] = []
    for one in concepts:
        if groups and len(groups[-1]) < size and groups[-1][0].terms == one.terms:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups
