"""The change of the weights with all concepts of a library in the model; where that takes a fusion, computed once."""

from collections.abc import Sequence

from mnemon.adapters import Delta
from mnemon.library.library import Library
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base


def fused_changes(library: Library, base: Base) -> dict[str, Delta]:
    """The fused changes of the library's revision: read, or computed and kept."""
    if (kept := library.fused()) is not None:
        return kept
    fused = composed_changes(library.method, library.learned(), base)
    library.write_fused(fused)
    return fused


def composed_changes(method: Method, concepts: Sequence[TrainedConcept], base: Base) -> dict[str, Delta]:
    """The change of each layer with all of `concepts` in the model, composed without a prompt."""
    with base.using_tokens(method.tokens(concepts)):
        return method.compose(base, concepts)
