"""What is kept on disk between concepts: an append-only history of what was learned and removed."""

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
from mnemon.library.library import Library

__all__ = [
    "Candidate",
    "Entry",
    "Library",
    "Proposal",
    "commit_candidate",
    "discard_candidate",
    "has_candidate",
    "put_aside",
    "read_candidate",
]
