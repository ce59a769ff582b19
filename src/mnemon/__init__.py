"""mnemon: teach a text-to-image model one concept after another, keep them all, and prove it with numbers.

    from mnemon import concept_from_folder, evaluate, generate, learn

    learn("my-library", concept_from_folder("photos/rex", class_noun="dog"))
    learn("my-library", concept_from_folder("photos/tom", class_noun="cat"))
    generate("my-library", "a photo of <rex> dog in the snow", num_images_per_prompt=4, out="pictures")
    print(evaluate("my-library").values)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnemon.api import (
        LearnResult,
        PhotoSettings,
        evaluate,
        export_concepts,
        generate,
        import_concept,
        learn,
    )
    from mnemon.data import Concept, concept_from_folder, concept_from_imagefolder, concepts_from_list
    from mnemon.errors import MnemonError
    from mnemon.evaluation import EvalSettings
    from mnemon.library import Library
    from mnemon.methods import METHODS, method_from
    from mnemon.models import load_base
    from mnemon.training import TrainingSettings

__version__ = "0.1.0"

_PUBLIC = {
    "mnemon.api": (
        "LearnResult",
        "PhotoSettings",
        "evaluate",
        "export_concepts",
        "generate",
        "import_concept",
        "learn",
    ),
    "mnemon.data": ("Concept", "concept_from_folder", "concept_from_imagefolder", "concepts_from_list"),
    "mnemon.errors": ("MnemonError",),
    "mnemon.library": ("Library",),
    "mnemon.methods": ("METHODS", "method_from"),
    "mnemon.evaluation": ("EvalSettings",),
    "mnemon.models": ("load_base",),
    "mnemon.training": ("TrainingSettings",),
}
"""Public names by module: read when first used, so that `import mnemon` and `mnemon --help` are quick."""
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "METHODS",
    "Concept",
    "Library",
    "MnemonError",
    "LearnResult",
    "PhotoSettings",
    "EvalSettings",
    "TrainingSettings",
    "concept_from_folder",
    "concept_from_imagefolder",
    "concepts_from_list",
    "evaluate",
    "export_concepts",
    "generate",
    "import_concept",
    "learn",
    "load_base",
    "method_from",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mnemon' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
