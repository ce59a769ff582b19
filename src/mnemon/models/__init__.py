"""Bases: frozen text-to-image models, one file a family."""

from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.loading import FAMILIES, load_base
from mnemon.models.quantization import Quantization

__all__ = ["FAMILIES", "Base", "Conditioning", "Quantization", "Tokens", "load_base"]
