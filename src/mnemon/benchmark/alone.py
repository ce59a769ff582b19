"""A method's own bound: what each concept reaches by the same recipe on the bare base, with no other in the model.

What the run, or another order of it, knows of that already is not trained again.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mnemon.benchmark.jobs import Job
from mnemon.benchmark.sequences import ConceptSequence
from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import RunFolder
from mnemon.methods.base import Method

Scores = Mapping[str, Any]


def scores_of_first(folder: RunFolder, method: Method, first: str) -> dict[str, Scores]:
    """The first concept's scores, by its name, where the first row is of it alone: it was trained without others."""
    cells: dict[str, Scores] = folder.rows.get("1", {}).get("concepts", {})
    return {first: cells[first]} if first in cells and (method.independent or not method.concurrent) else {}


def scores_of_other_orders(job: Job, sequence: ConceptSequence) -> dict[str, Scores]:
    """By concept what the method's other orders with the job's seed have: an own training does not know the order."""
    asked = {key: value for key, value in job.to_json(sequence).items() if key not in ("order", "concepts")}
    known: dict[str, Scores] = {}
    for path in sorted(job.folder.parent.glob(f"order-*-seed-{job.seed}")):
        with suppress(MnemonError):  # it is of other settings, or damaged
            folder = RunFolder(path)
            folder.check(asked)
            known |= folder.alone
    return known
