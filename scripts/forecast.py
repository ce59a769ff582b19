"""How well the forecast of forgetting follows the forgetting that was measured, on jobs of `mnemon bench`.

    python -m scripts.forecast runs/world-10/stamina/order-0-seed-0 ...

For every concept but the last: its movement from the revision that brought it to the last one (`mnemon.evaluation.
forecast`, without sampling), and by how much its identity alignment fell (from the job's rows). Per job the rank
correlation (Spearman) of the two.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mnemon.evaluation.forecast import composed, movement, prompt_features
from mnemon.library import Library
from mnemon.models import load_base


def points(job: Path) -> list[dict[str, Any]]:
    """For each concept {"name", "movement", "steps", "squares", "fall"}: also of each step: their sum, and the root of the sum of their
    squares."""
    library = Library.open(job / "library")
    base, method = load_base(library.base_name), library.method
    rows = {int(key): row["concepts"] for key, row in json.loads((job / "rows.json").read_text()).items()}
    last = library.revision
    states = {revision: Library.open(library.path, revision) for revision in range(1, last + 1)}
    learned = library.learned()
    found = []
    for number, concept in enumerate(learned[:-1], start=1):
        name = concept.name
        features = prompt_features(base, method, concept)
        changes = [
            composed(base, method, learned[:revision], name, states[revision].fused())
            for revision in range(number, last + 1)
        ]
        each = [movement(base, features, one, two) for one, two in pairwise(changes)]
        fall = rows[number][name]["identity_alignment"] - rows[last][name]["identity_alignment"]
        found.append(
            {
                "name": name,
                "movement": movement(base, features, changes[0], changes[-1]),
                "steps": sum(each),
                "squares": sum(one**2 for one in each) ** 0.5,
                "fall": fall,
            }
        )
    return found


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's, for values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", type=Path)
    for job in parser.parse_args().jobs:
        found = points(job)
        falls = [one["fall"] for one in found]
        for key in ("movement", "steps", "squares"):
            print(f"{job}: rank correlation of {key} {rank_correlation([one[key] for one in found], falls):.3f}")
        for one in found:
            print(f"  {one['name']:10} movement {one['movement']:.4f} squares {one['squares']:.4f} fall {one['fall']:+.3f}")


if __name__ == "__main__":
    main()
