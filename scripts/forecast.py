"""How well the forecast of forgetting follows the forgetting that was measured, on jobs of `mnemon bench`.

    python -m scripts.forecast runs/world-10/stamina/order-0-seed-0 ... --out forecast.json

For every concept but the last: its movement since it was learned (`mnemon.evaluation.forecast`, nothing is sampled),
and by how much its identity alignment fell (from the job's rows).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnemon.evaluation.forecast import State, movements, prompt_features
from mnemon.files import write_json
from mnemon.library import Library
from mnemon.models import load_base
from mnemon.training.scoring import MOVED
from scripts.relevance import rank_correlation

FALL = 0.05  # of identity alignment: a real one


def concepts_of(job: Path) -> list[dict[str, Any]]:
    """For each concept {"name", "movement", "direct", "fall"}: its movement as libraries add it up, the root of the sum
    of squared steps, and directly between the first and the last revision."""
    states = [Library.open(job / "library", revision) for revision in range(Library.open(job / "library").revision + 1)]
    base, method = load_base(states[-1].base_name), states[-1].method
    learned = states[-1].learned()
    features = {one.name: prompt_features(base, method, one) for one in learned}
    at = [State(method, learned[: state.revision], state.fused()) for state in states]
    rows = {int(key): row["concepts"] for key, row in json.loads((job / "rows.json").read_text()).items()}
    squares = {one.name: 0.0 for one in learned}
    for before, after in zip(at[1:], at[2:], strict=False):
        for name, moved in movements(base, before, after, lambda one: features[one.name]).items():
            squares[name] += moved**2
    found = []
    for number, concept in enumerate(learned[:-1], start=1):
        name = concept.name
        direct = movements(base, at[number], at[-1], lambda one: features[one.name])[name]
        first, last = (rows[revision][name]["identity_alignment"] for revision in (number, len(learned)))
        found.append({"name": name, "movement": squares[name] ** 0.5, "direct": direct, "fall": first - last})
    return found


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlations of the forecast with the falls, and how many of the real falls it would have sampled."""
    falls = [one["fall"] for one in found]
    real = [one["movement"] >= MOVED for one in found if one["fall"] > FALL]
    return {
        **{key: rank_correlation([one[key] for one in found], falls) for key in ("movement", "direct")},
        "sampled": sum(one["movement"] >= MOVED for one in found) / len(found),
        "falls": len(real),
        "falls_sampled": sum(real),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/forecast.json"))
    arguments = parser.parse_args()
    results = {}
    for job in arguments.jobs:
        found = concepts_of(job)
        results[f"{job.parent.name} {job.name}"] = {**summary(found), "concepts": found}
        print(job.parent.name, job.name, summary(found))
        for one in found:
            print("  {name:12} movement {movement:.4f} direct {direct:.4f} fall {fall:+.3f}".format(**one))
    write_json(arguments.out, results)


if __name__ == "__main__":
    main()
