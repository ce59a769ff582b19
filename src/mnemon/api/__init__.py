"""The jobs of mnemon: learn, generate, evaluate, export, import. The command line does nothing but call these."""

from mnemon.api.drawing import generate
from mnemon.api.exchange import Imported, export_concepts, import_concept
from mnemon.api.learning import OnStep, Outcome, learn, learn_together, learns_together
from mnemon.api.scoring import evaluate, single_lora_identity_ratio
from mnemon.lessons import PhotoSettings

__all__ = [
    "Imported",
    "OnStep",
    "Outcome",
    "PhotoSettings",
    "evaluate",
    "export_concepts",
    "generate",
    "import_concept",
    "learn",
    "learn_together",
    "learns_together",
    "single_lora_identity_ratio",
]
