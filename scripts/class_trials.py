"""Choose the learning rates of a comparison of classifiers, on development classes, with three trials of each method:

    python -m scripts.class_trials --out runs/class-trials

Each trial is one run of `classes-4-dev`, order 0, with the method's default learning rate times 1, 3 or 10; the one
with the highest A_N is chosen. Nothing else is tried. Writes `trials.json` into the folder; a killed run goes on.
"""

import argparse
import json
from pathlib import Path

from mnemon.benchmark import SerialExecutor
from mnemon.benchmark.classes import plan_classes, run_class_bench
from mnemon.classification import CLASSIFIERS
from mnemon.files import write_json

FACTORS = (1, 3, 10)


def trials(out: Path, methods: list[str]) -> dict[str, dict[str, float]]:
    """By method A_N by learning rate."""
    found: dict[str, dict[str, float]] = {}
    for factor in FACTORS:
        rates = {name: float(f"{CLASSIFIERS[name]().learning_rate * factor:.3g}") for name in methods}
        settings = {name: {"learning_rate": rate} for name, rate in rates.items()}
        folder = out / f"times-{factor}"
        run_class_bench(plan_classes(folder, "classes-4-dev", methods, 1, settings=settings), SerialExecutor())
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["methods"]
        for name in methods:
            found.setdefault(name, {})[str(rates[name])] = summary[name]["a_n"]["mean"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose learning rates on development classes.")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    methods = [name for name, kind in CLASSIFIERS.items() if kind.trains_head]
    found = trials(given.out, methods)
    write_json(given.out / "trials.json", found)
    for name, by_rate in found.items():
        known = {rate: value for rate, value in by_rate.items() if value is not None}
        print(f"{name:14} {max(known, key=lambda rate: known[rate]):8} {by_rate}")


if __name__ == "__main__":
    main()
