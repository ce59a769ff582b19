"""The jobs of mnemon: learn, generate, evaluate. The command line does nothing but call these."""

from mnemon.api.drawing import generate
from mnemon.api.learning import OnStep, Outcome, learn, learn_together, learns_together
from mnemon.api.scoring import evaluate, single_lora_identity_ratio
from mnemon.lessons import PhotoSettings

__all__ = [
    "OnStep",
    "Outcome",
    "PhotoSettings",
    "evaluate",
    "generate",
    "learn",
    "learn_together",
    "learns_together",
    "single_lora_identity_ratio",
]
