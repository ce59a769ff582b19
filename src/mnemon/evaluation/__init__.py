"""Numbers: encoders, alignment, distributions, the score matrix and what follows from it."""

from mnemon.evaluation.encoders import Encoders, HubEncoders, WorldEncoders, encoders_for, reference_features
from mnemon.evaluation.evaluate import ScoreSettings, evaluate_row, general_alignment, settings_for
from mnemon.evaluation.matrix import ScoreMatrix, figures, matrix_from_rows

__all__ = [
    "Encoders",
    "HubEncoders",
    "ScoreMatrix",
    "ScoreSettings",
    "WorldEncoders",
    "encoders_for",
    "figures",
    "general_alignment",
    "matrix_from_rows",
    "evaluate_row",
    "reference_features",
    "settings_for",
]
