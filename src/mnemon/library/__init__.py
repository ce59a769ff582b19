"""Concepts on disk: an append-only history of what was learned and removed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnemon.library.candidate import Candidate as Candidate
    from mnemon.library.candidate import Proposal as Proposal
    from mnemon.library.candidate import check_no_candidate as check_no_candidate
    from mnemon.library.candidate import commit_all as commit_all
    from mnemon.library.candidate import commit_candidate as commit_candidate
    from mnemon.library.candidate import discard_candidate as discard_candidate
    from mnemon.library.candidate import has_candidate as has_candidate
    from mnemon.library.candidate import is_unfinished as is_unfinished
    from mnemon.library.candidate import put_aside as put_aside
    from mnemon.library.candidate import read_candidate as read_candidate
    from mnemon.library.entry import Entry as Entry
    from mnemon.library.fusion import composed_changes as composed_changes
    from mnemon.library.fusion import fused_changes as fused_changes
    from mnemon.library.fusion import kept_fusion as kept_fusion
    from mnemon.library.header import is_library as is_library
    from mnemon.library.history import History as History
    from mnemon.library.library import Library as Library

_PUBLIC = {
    "candidate": (
        "Candidate", "Proposal", "check_no_candidate", "commit_all", "commit_candidate", "discard_candidate",
        "has_candidate", "is_unfinished", "put_aside", "read_candidate",
    ),
    "entry": ("Entry",),
    "fusion": ("composed_changes", "fused_changes", "kept_fusion"),
    "header": ("is_library",),
    "history": ("History",),
    "library": ("Library",),
}  # fmt: skip
"""Public names by module: read when first used, so that `History` is there without torch."""
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mnemon.library' has no attribute '{name}'")
    return getattr(import_module(f"mnemon.library.{_HOMES[name]}"), name)
