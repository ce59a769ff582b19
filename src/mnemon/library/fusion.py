"""The change of the weights with all concepts of a library in the model; where that takes a fusion, computed once."""

import logging
from collections.abc import Sequence
from contextlib import suppress

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.library.library import Library
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base

log = logging.getLogger("mnemon")


def fused_changes(library: Library, base: Base) -> dict[str, Delta]:
    """The fused changes of the library's revision: read, or computed and kept. One that is damaged is computed again;
    one that cannot be kept, since another process writes or the folder is read-only, is used all the same."""
    if (kept := kept_fusion(library)) is not None:
        return kept
    fused = composed_changes(library.method, library.learned(), base)
    with suppress(MnemonError):
        library.write_fused(fused)
    return fused


def kept_fusion(library: Library) -> dict[str, Delta] | None:
    """The fused changes that are kept of the revision; None if there are none, or damaged ones, with a warning."""
    try:
        return library.fused()
    except MnemonError as error:
        log.warning("%s", error)
        return None


def composed_changes(method: Method, concepts: Sequence[TrainedConcept], base: Base) -> dict[str, Delta]:
    """The change of each layer with all of `concepts` in the model, composed without a prompt."""
    with base.using_tokens(method.tokens(concepts)):
        return method.compose(base, concepts)
