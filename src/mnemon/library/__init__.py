"""What is kept on disk between concepts: an append-only history of what was learned and removed."""

from mnemon.library.entry import Entry
from mnemon.library.library import Library

__all__ = ["Entry", "Library"]
