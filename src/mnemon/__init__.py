"""mnemon: train a text-to-image model on one concept after another, keep them all, and prove it with numbers.

from mnemon import concept_from_folder, evaluate, generate, learn

learn("my-library", concept_from_folder("photos/rex", class_noun="dog"))
learn("my-library", concept_from_folder("photos/tom", class_noun="cat"))
generate("my-library", "a photo of <rex> dog in the snow", num_images_per_prompt=4, out="images")
print(evaluate("my-library").values)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnemon.api import LearnResult as LearnResult
    from mnemon.api import evaluate as evaluate
    from mnemon.api import export_concepts as export_concepts
    from mnemon.api import generate as generate
    from mnemon.api import import_concept as import_concept
    from mnemon.api import learn as learn
    from mnemon.data import Concept as Concept
    from mnemon.data import concept_from_folder as concept_from_folder
    from mnemon.data import concept_from_imagefolder as concept_from_imagefolder
    from mnemon.data import concepts_from_list as concepts_from_list
    from mnemon.errors import MnemonError as MnemonError
    from mnemon.evaluation import EvalSettings as EvalSettings
    from mnemon.library import Library as Library
    from mnemon.methods import METHODS as METHODS
    from mnemon.methods import method_from as method_from
    from mnemon.models import load_base as load_base
    from mnemon.training import PhotoSettings as PhotoSettings
    from mnemon.training import TrainingSettings as TrainingSettings

__version__ = "0.1.0"

_PUBLIC = {
    "mnemon.api": ("LearnResult", "evaluate", "export_concepts", "generate", "import_concept", "learn"),
    "mnemon.data": ("Concept", "concept_from_folder", "concept_from_imagefolder", "concepts_from_list"),
    "mnemon.errors": ("MnemonError",),
    "mnemon.evaluation": ("EvalSettings",),
    "mnemon.library": ("Library",),
    "mnemon.methods": ("METHODS", "method_from"),
    "mnemon.models": ("load_base",),
    "mnemon.training": ("PhotoSettings", "TrainingSettings"),
}
"""Public names by module: read when first used, so that `import mnemon` and `mnemon --help` are quick."""
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mnemon' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
