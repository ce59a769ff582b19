"""What `learn` picks for the cards that people have, on bases of real sizes: counted on the meta device, not run.

python -m scripts.cards            count, and write results/cards.json (minutes)
"""

import json
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.methods import method_from
from mnemon.planning import GB, Plan, choose, wishes

RESULT = Path(__file__).parents[1] / "results" / "cards.json"
BASES = ("sdxl", "sd3.5-medium", "flux2-klein-4b", "z-image")
METHODS = ("stamina", "lora")
CARDS = (24, 16, 12)
HEAD = ("base", "method", "card, GB", "weights", "batch", "checkpointing", "images at once", "training", "scoring")


def count() -> list[dict[str, Any]]:
    """One entry a base, method and card."""
    counted = []
    for base in BASES:
        for method in METHODS:
            plan = Plan(base, method_from(method))
            for memory in CARDS:
                counted.append({"base": base, "method": method, "memory": memory, **_picked(plan, memory)})
                print(counted[-1], flush=True)
    return counted


def _picked(plan: Plan, memory: int) -> dict[str, Any]:
    try:
        choice = choose(plan, *wishes(plan, {}), memory)
    except MnemonError as error:
        return {"refused": str(error)}
    training, scoring = choice.peaks
    return {**vars(choice.options), "training_gb": round(training / GB, 2), "scoring_gb": round(scoring / GB, 2)}


def rows() -> list[tuple[str, ...]]:
    """For the docs."""
    return [_row(one) for one in json.loads(RESULT.read_text(encoding="utf-8"))]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    first = (one["base"], one["method"], str(one["memory"]))
    if "refused" in one:
        return (*first, one["refused"].partition(", of which")[2].partition(": it ")[2], *[""] * (len(HEAD) - 4))
    parts, images = one["gradient_accumulation_steps"], str(one["images_at_once"])
    batch = str(one["batch_size"]) + (f" in {parts} parts" if parts > 1 else "")
    images += ", text encoders off the card" if one["offload_text"] else ""
    checkpointing = "yes" if one["gradient_checkpointing"] else "no"
    return (
        *first,
        one["weights"],
        batch,
        checkpointing,
        images,
        f"{one['training_gb']:.1f}",
        f"{one['scoring_gb']:.1f}",
    )


if __name__ == "__main__":
    RESULT.write_text(json.dumps(count(), indent=1) + "\n", encoding="utf-8")
