"""Numbers: encoders, alignment, distributions, the score matrix and what follows from it, plots, the report."""

from mnemon.metrics.encoders import Encoders, HubEncoders, WorldEncoders, encoders_for, reference_features
from mnemon.metrics.matrix import ScoreMatrix, figures, matrix_from_rows
from mnemon.metrics.measure import ScoreSettings, general_alignment, measure_row, settings_for
from mnemon.metrics.plots import plot_curves, plot_matrix
from mnemon.metrics.report import MethodReport, Report, write_report

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
    "measure_row",
    "plot_curves",
    "plot_matrix",
    "reference_features",
    "settings_for",
    "write_report",
]
