"""Concepts on disk: an append-only history of what was learned and removed."""

from mnemon.library.candidate import (
    Candidate,
    Proposal,
    commit_candidate,
    discard_candidate,
    has_candidate,
    put_aside,
    read_candidate,
)
from mnemon.library.entry import Entry
from mnemon.library.fusion import composed_changes, fused_changes
from mnemon.library.header import is_library
from mnemon.library.library import Library

__all__ = [
    "Candidate",
    "Entry",
    "Library",
    "Proposal",
    "commit_candidate",
    "composed_changes",
    "discard_candidate",
    "fused_changes",
    "has_candidate",
    "is_library",
    "put_aside",
    "read_candidate",
]
