"""Bases told from their configs alone, before anything is loaded."""

from mnemon.planning.outline import Outline, known_sizes, outline

__all__ = ["Outline", "known_sizes", "outline"]
