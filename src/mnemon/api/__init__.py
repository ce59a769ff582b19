"""The jobs of mnemon: learn, generate, evaluate, export, import. The command line does nothing but call these."""

from mnemon.api.comparing import Difference, diff
from mnemon.api.drawing import generate
from mnemon.api.exchange import Imported, export_concepts, import_concept
from mnemon.api.learning import OnStep, Outcome, learn, learn_together, learns_together
from mnemon.api.previewing import preview
from mnemon.api.scoring import evaluate, single_lora_identity_ratio
from mnemon.lessons import PhotoSettings

__all__ = [
    "Difference",
    "Imported",
    "OnStep",
    "Outcome",
    "PhotoSettings",
    "diff",
    "evaluate",
    "export_concepts",
    "generate",
    "import_concept",
    "learn",
    "learn_together",
    "learns_together",
    "preview",
    "single_lora_identity_ratio",
]
