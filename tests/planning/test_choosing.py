"""What is picked to fit a GPU, on a plan whose memory is a formula."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from mnemon.errors import MnemonError
from mnemon.methods.lora import Lora
from mnemon.models.profiles import PROFILES
from mnemon.planning import GB, Estimate, MemoryOptions, choose, wishes
from mnemon.planning.choosing import SCORING, Choice

WEIGHTS = {"fp32": 16.0, "bf16": 8.0, "8bit": 4.0, "4bit": 2.0}
WANTED = MemoryOptions("bf16", False, 4, 1, False, 4)


class Formula:
    """Weights, and a gigabyte for each image of a step (a quarter with checkpointing) and for each sampled one."""

    method, can_offload = Lora(batch_size=4), True
    configs = SimpleNamespace(name="formula")

    def __init__(self, row: float = 2.0) -> None:
        self._row = row

    def base(self, weights: str) -> Any:
        return SimpleNamespace(profile=PROFILES["sdxl"])

    def batch_size(self, options: MemoryOptions) -> int:
        return options.batch_size or self.method.batch_size

    def estimate(self, options: MemoryOptions) -> Estimate:
        rows = -(-self.batch_size(options) // options.gradient_accumulation_steps)
        step = rows * self._row * (0.25 if options.gradient_checkpointing else 1.0)
        text = 0.0 if options.offload_text else 2.0
        weights = WEIGHTS[options.weights]
        training = {"weights": weights + 2, "step": step}
        sampling = {"weights": weights + text, "passing": float(options.images_at_once)}
        return Estimate(*({key: int(GB * one) for key, one in part.items()} for part in (training, sampling)), 1)


def picked(memory: float, wanted: MemoryOptions = WANTED, fixed: Collection[str] = (), row: float = 2.0) -> Choice:
    return choose(Formula(row), wanted, fixed, memory)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("memory", "row", "expected"),
    [
        (24, 2.0, MemoryOptions("bf16", False, 4, 1, False, 4)),
        (18, 2.0, MemoryOptions("bf16", True, 4, 1, False, 4)),
        (15, 4.0, MemoryOptions("bf16", True, 4, 2, False, 2)),
        (10, 4.0, MemoryOptions("8bit", True, 4, 2, False, 2)),
        (7.6, 1.0, MemoryOptions("8bit", True, 4, 2, True, 1)),
    ],
)
def test_what_gives_way(memory: float, row: float, expected: MemoryOptions) -> None:
    choice = picked(memory, row=row)
    assert choice.peak <= 0.9 * memory * GB + 1 and choice.peaks[1] >= SCORING
    assert choice.options == expected
    assert bool(choice.changed) == (choice.options != WANTED)


@pytest.mark.parametrize(
    ("fixed", "changed"),
    [
        ({"gradient_checkpointing"}, {"gradient_accumulation_steps"}),
        ({"gradient_accumulation_steps"}, {"gradient_checkpointing"}),
        ({"weights"}, {"gradient_checkpointing"}),
    ],
)
def test_what_the_user_sets_stays(fixed: set[str], changed: set[str]) -> None:
    options = picked(18, fixed=fixed).options
    assert {name for name in vars(options) if getattr(options, name) != getattr(WANTED, name)} >= changed
    assert all(getattr(options, name) == getattr(WANTED, name) for name in fixed)


@pytest.mark.parametrize(
    ("memory", "fixed", "nearest"),
    [
        (6, set(), "With --weights 4bit"),
        (11, {"weights"}, "With --weights 8bit"),
        (10, {"weights", "gradient_checkpointing"}, "Left to choose"),
        (2, set(), "which fits a GPU of 8 GB"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_nearest_that_can(memory: float, fixed: set[str], nearest: str) -> None:
    wanted = MemoryOptions("bf16", False, 40 if "gradient_checkpointing" in fixed else 4, 1, False, 4)
    if "gradient_checkpointing" in fixed:
        fixed = fixed | {"gradient_accumulation_steps"}
    with pytest.raises(MnemonError) as refused:
        picked(memory, wanted, fixed)
    assert nearest in str(refused.value) and f"does not fit {memory:g} GB" in str(refused.value)


def test_wishes_are_the_profiles_unless_they_are_set() -> None:
    plan: Any = Formula()
    options, fixed = wishes(plan, {})
    assert not fixed and options == MemoryOptions("bf16", True, 4, 1, False, 4)
    options, fixed = wishes(plan, {"batch_size": 2, "weights": "8bit", "gradient_checkpointing": False, "steps": 9})
    assert fixed == {"batch_size", "weights", "gradient_checkpointing"}
    assert (options.weights, options.batch_size, options.gradient_checkpointing) == ("8bit", 2, False)
