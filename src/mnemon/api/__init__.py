"""The jobs of mnemon: learn, generate, evaluate, export, import. The command line does nothing but call these."""

from mnemon.api.candidates import Refused, commit, discard, refusal, waiting
from mnemon.api.comparing import Difference, diff
from mnemon.api.drawing import generate
from mnemon.api.exchange import Imported, export_concepts, import_concept
from mnemon.api.learning import Outcome, learn, learn_together, learns_together
from mnemon.api.opening import open_base
from mnemon.api.previewing import preview
from mnemon.api.reordering import reorder
from mnemon.api.scoring import evaluate, single_lora_identity_ratio
from mnemon.api.stopping import Goal
from mnemon.api.teaching import OnStep
from mnemon.lessons import PhotoSettings

__all__ = [
    "Difference",
    "Goal",
    "Imported",
    "OnStep",
    "Outcome",
    "PhotoSettings",
    "Refused",
    "commit",
    "diff",
    "discard",
    "evaluate",
    "export_concepts",
    "generate",
    "import_concept",
    "learn",
    "learn_together",
    "learns_together",
    "open_base",
    "preview",
    "refusal",
    "reorder",
    "single_lora_identity_ratio",
    "waiting",
]
