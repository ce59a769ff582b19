"""The jobs of mnemon: learn, generate, evaluate, export, import. The command line does nothing but call these."""

from mnemon.api.comparing import Difference, diff
from mnemon.api.evaluating import evaluate, single_lora_identity_ratio
from mnemon.api.exchange import ImportResult, export_concepts, import_concept
from mnemon.api.generating import generate
from mnemon.api.learning import finish_commit, learn
from mnemon.api.opening import open_base
from mnemon.api.previewing import preview
from mnemon.api.reordering import reorder
from mnemon.api.setting_up import Setup, set_up
from mnemon.training import OnStep, PhotoSettings
from mnemon.training.early_stopping import EarlyStopping
from mnemon.training.forgetting_budget import BudgetExceeded
from mnemon.training.session import LearnResult

__all__ = [
    "BudgetExceeded",
    "Difference",
    "EarlyStopping",
    "ImportResult",
    "LearnResult",
    "OnStep",
    "PhotoSettings",
    "Setup",
    "diff",
    "evaluate",
    "export_concepts",
    "finish_commit",
    "generate",
    "import_concept",
    "learn",
    "open_base",
    "preview",
    "reorder",
    "set_up",
    "single_lora_identity_ratio",
]
