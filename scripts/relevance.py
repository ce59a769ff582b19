"""Whether fl2t's relevance follows likeness: rank correlation of lambda with what the identity encoder sees.

    python -m scripts.relevance "fl2t" "fl2t positive=embedding temperature=1" --out relevance.json

The concepts are development concepts. True likeness of two is the cosine of the mean identity features of their
held-out photos, or that they have one noun.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mnemon.evaluation import WorldEncoders
from mnemon.files import write_json
from mnemon.models import load_base
from mnemon.training import TrainingSettings, make_tasks, train
from mnemon.world import WorldConcept, base_folder, thing_concept
from scripts.common import references_of
from scripts.sweep import PHOTOS, parse

CONCEPTS = ("mug:301", "mug:302", "mug:303", "cat:304", "cat:305", "cat:306", "house:307", "house:308")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", help="'fl2t', with settings after it")
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS, help="noun:seed")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; variants it holds are not run again")
    asked = parser.parse_args()
    concepts = named_concepts(asked.concepts)
    base, encoders = load_base("world"), WorldEncoders(base_folder())
    references = references_of(base, encoders, concepts)
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for variant in asked.variants:
        if variant not in results:
            method = parse(variant)
            tasks = make_tasks(base, method, [one.photos(PHOTOS, seed=1) for one in concepts], seed=asked.seed)
            learned = train(base, method, tasks, settings=TrainingSettings(seed=asked.seed))
            cells = {one.name: {"facts": dict(one.facts)} for one in learned}
            results[variant] = {**rank_correlations(cells, references), "concepts": cells}
            write_json(asked.out, results)
        print(
            f"{variant:60s}", {key: value for key, value in results[variant].items() if key != "concepts"}, flush=True
        )


def named_concepts(listed: Sequence[str]) -> list[WorldConcept]:
    """The world's things "noun:seed"; mug:301 is called mug301."""
    pairs = (one.split(":") for one in listed)
    return [thing_concept(f"{noun}{seed}", int(seed), noun) for noun, seed in pairs]


def rank_correlations(cells: Mapping[str, Any], references: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """Spearman's of lambda over all ordered pairs of concepts, with the cosine of mean identity features, of mean
    image features, with having one noun, and with having one noun first and then the identity; `noun_most` is the most
    that can be had with the noun. And the range of lambda.

    Args:
        cells: concept -> {"facts": {"relevance": {other concept: lambda}}}.
        references: concept -> features of its held-out photos.
    """
    pairs = [(one, other) for one in cells for other in cells[one]["facts"]["relevance"]]
    weights = [cells[one]["facts"]["relevance"][other] for one, other in pairs]
    nouns = [float(one.rstrip("0123456789") == other.rstrip("0123456789")) for one, other in pairs]
    identity, image = (_likeness(pairs, references, kind) for kind in ("identity", "image"))
    combined = [2 * noun + cosine for noun, cosine in zip(nouns, identity, strict=True)]  # cosines are in -1..1
    return {
        "identity": rank_correlation(weights, identity),
        "image": rank_correlation(weights, image),
        "noun": rank_correlation(weights, nouns),
        "noun_most": rank_correlation(combined, nouns),
        "noun_then_identity": rank_correlation(weights, combined),
        "lowest": min(weights),
        "highest": max(weights),
    }


def _likeness(
    pairs: Sequence[tuple[str, str]], references: Mapping[str, Mapping[str, Tensor]], kind: str
) -> list[float]:
    means = {name: features[kind].mean(0) for name, features in references.items()}
    return [float(cosine_similarity(means[one], means[other], dim=0)) for one, other in pairs]


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rho, with mean ranks for equal values."""
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _ranks(values: Sequence[float]) -> list[float]:
    array = np.asarray(values)
    return [float((array < one).sum() + (array == one).sum() / 2) for one in array]


if __name__ == "__main__":
    main()
