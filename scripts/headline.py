"""The headline figure of docs/results.md: `python -m scripts.headline results/world-50 docs/images/world-50.png`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

LABELS = {"stamina": "stamina (80 steps)"}
COLOURS = {"stamina": "black"}
BOLD = ("stamina", "lora")


def main(folder: Path, to: Path) -> None:
    """Mean identity alignment of all concepts so far, wherever a whole row of the matrix was measured."""
    figure, axes = pyplot.subplots(figsize=(8, 4.2), dpi=110, layout="constrained")
    for run in json.loads((folder / "matrices.json").read_text(encoding="utf-8"))["runs"]:
        matrix = run["scores"]["identity_alignment"]
        rows = {int(t): list(row.values()) for t, row in matrix.items() if len(row) == int(t)}
        means = [sum(row) / len(row) for row in rows.values()]
        width = 2.6 if run["method"] in BOLD else 1.2
        name = run["method"]
        style = {"marker": "o", "linewidth": width, "color": COLOURS.get(name), "label": LABELS.get(name, name)}
        axes.plot(list(rows), means, **style)
    axes.set(xlabel="concepts learned", ylabel="identity alignment, mean of all so far", xlim=(0, 51), ylim=(0, 0.9))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
