"""The built-in world: images drawn from a seed, captions, concepts, and the recipe of the built-in base."""

from importlib.resources import files
from pathlib import Path

from mnemon.world.concepts import WorldConcept, style_concept, thing_concept

__all__ = ["WorldConcept", "backbone_folder", "base_folder", "style_concept", "thing_concept"]


def base_folder() -> Path:
    """Where the built-in base lies: a diffusers folder with `encoders/` and `figures.json`."""
    return Path(str(files("mnemon.world") / "base"))


def backbone_folder() -> Path:
    """Where the built-in backbone of classifiers lies: a transformers folder with its card."""
    return Path(str(files("mnemon.world") / "backbone"))
