"""Numbers: encoders, alignment, distributions, the score matrix and what follows from it, plots, the report."""

from mnemon.evaluation.encoders import Encoders, HubEncoders, WorldEncoders, encoders_for, reference_features
from mnemon.evaluation.evaluate import ScoreSettings, evaluate_row, general_alignment, settings_for
from mnemon.evaluation.matrix import ScoreMatrix, figures, matrix_from_rows
from mnemon.report.library_page import MethodReport, Report, write_report
from mnemon.report.plots import plot_curves, plot_matrix

__all__ = [
    "Encoders",
    "HubEncoders",
    "MethodReport",
    "Report",
    "ScoreMatrix",
    "ScoreSettings",
    "WorldEncoders",
    "encoders_for",
    "figures",
    "general_alignment",
    "matrix_from_rows",
    "evaluate_row",
    "plot_curves",
    "plot_matrix",
    "reference_features",
    "settings_for",
    "write_report",
]
