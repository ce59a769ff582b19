"""Plots as PNG files: the score matrix as a heat map, and scores over time as curves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mnemon.evaluation.matrix import ScoreMatrix

_DPI = 150


def plot_matrix(path: Path, matrix: ScoreMatrix, title: str) -> None:
    """A heat map, one row a state and one column a concept, the scores written in. Colours run over 0..1."""
    rows, columns = matrix.values.shape
    figure = Figure(figsize=(1.8 + 0.8 * max(columns, 2), 1.4 + 0.45 * max(rows, 2)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(matrix.values), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(columns), matrix.names, rotation=35, ha="right")
    axes.set_yticks(range(rows), [f"after {state}" for state in matrix.states])
    for t, j in np.argwhere(~np.isnan(matrix.values)):
        value = matrix.values[t, j]
        axes.text(j, t, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black", fontsize=8)
    axes.set_title(title)
    figure.colorbar(image)
    _save(figure, path)


def plot_curves(path: Path, matrix: ScoreMatrix, title: str, ceilings: Mapping[str, float | None]) -> None:
    """Each concept's score over the library's states, with its ceiling as a dashed line of its colour."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for j, name in enumerate(matrix.names):
        (line,) = axes.plot(matrix.states, matrix.values[:, j], marker="o", label=name)
        if (ceiling := ceilings.get(name)) is not None:
            axes.axhline(ceiling, color=line.get_color(), linestyle="--", linewidth=0.8, alpha=0.6)
    axes.set(title=title, xlabel="library state (commits)", ylabel="mean cosine", xticks=matrix.states)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
