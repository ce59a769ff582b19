"""The jobs of mnemon: learn, generate, evaluate, export, import. The command line does nothing but call these."""

from mnemon.api.comparing import Difference, diff
from mnemon.api.evaluating import evaluate, single_lora_identity_ratio
from mnemon.api.exchange import ImportResult, export_concepts, import_concept
from mnemon.api.generating import generate
from mnemon.api.learning import LearnResult, learn, learn_together, learns_together
from mnemon.api.opening import open_base
from mnemon.api.previewing import preview
from mnemon.api.reordering import reorder
from mnemon.training.early_stopping import Goal
from mnemon.training.forgetting_budget import Refused, commit, discard, refusal, waiting
from mnemon.training.session import OnStep
from mnemon.training.tasks import PhotoSettings

__all__ = [
    "Difference",
    "Goal",
    "ImportResult",
    "OnStep",
    "LearnResult",
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
