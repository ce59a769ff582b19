"""How many settings were tried of each method before its own were chosen, by `trials.json`.

Counted are the different settings that a section of docs/lab-log.md lists for it, the chosen ones included; ablations
count, other concepts or seeds do not. No number: the log does not say.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Trials:
    """`count` settings, None where it is not known; `where`: the anchors of the lab log's sections."""

    count: int | None = None
    where: tuple[str, ...] = ()


@cache
def all_trials() -> dict[str, Trials]:
    """By method."""
    listed = json.loads((files("mnemon.report") / "trials.json").read_text(encoding="utf-8"))
    return {method: Trials(one["trials"], tuple(one["where"])) for method, one in listed.items()}


def trials_of(method: str) -> Trials:
    """Unknown for a method that the table does not list."""
    return all_trials().get(method, Trials())
