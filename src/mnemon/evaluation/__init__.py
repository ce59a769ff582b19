"""Numbers: encoders, alignment, distributions, the evaluator, the score matrix and what follows from it."""

from mnemon.evaluation.encoders import Encoders, HubEncoders, WorldEncoders, encoders_for, reference_features
from mnemon.evaluation.evaluate import EvalRow, evaluate, evaluate_library
from mnemon.evaluation.matrix import ScoreMatrix, matrix_from_rows
from mnemon.evaluation.settings import EvalSettings

__all__ = [
    "Encoders",
    "EvalRow",
    "EvalSettings",
    "HubEncoders",
    "ScoreMatrix",
    "WorldEncoders",
    "encoders_for",
    "evaluate",
    "evaluate_library",
    "matrix_from_rows",
    "reference_features",
]
