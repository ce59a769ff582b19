"""Bases: frozen text-to-image models, one file a family."""

from typing import TYPE_CHECKING, Any

from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.quantization import Quantization, Weights

if TYPE_CHECKING:
    from mnemon.models.loading import FAMILIES, lasting_name, load_base

__all__ = ["FAMILIES", "Base", "Conditioning", "Quantization", "Tokens", "Weights", "lasting_name", "load_base"]


def __getattr__(name: str) -> Any:
    """Read when first used: the families' pipelines take seconds to import, and libraries are read without them."""
    if name not in ("FAMILIES", "lasting_name", "load_base"):
        raise AttributeError(f"module 'mnemon.models' has no attribute '{name}'")
    from mnemon.models import loading

    return getattr(loading, name)
