"""The verdict on what a tool made of a file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.export.readers.reading import Reader, verdict

BASE = {"unet.a.weight": torch.zeros(2), "unet.b.weight": torch.zeros(2)}
MERGED = {"unet.a.weight": torch.ones(2), "unet.b.weight": torch.ones(2)}


class Tool(Reader):
    version = "tool 1"

    def __init__(self, made: Callable[[], dict[str, Tensor]]) -> None:
        self.made = made

    def open(self, family: str, folder: Path) -> None:
        raise NotImplementedError

    def weights(self, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: changed.get(name, weight) for name, weight in BASE.items()}

    def read(self, file: Path) -> dict[str, Tensor]:
        return self.made()


def no() -> dict[str, Tensor]:
    raise ValueError("not mine")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: MERGED, {"verdict": "right", "left": 0, "off": 0.0}),
        (lambda: {"unet.a.weight": torch.full((2,), 1.0005), "unet.b.weight": torch.ones(2)}, {"verdict": "right"}),
        (lambda: {"unet.a.weight": torch.ones(2)}, {"verdict": "left", "left": 1, "wrong": 0}),
        (lambda: {"unet.a.weight": torch.full((2,), 0.5)}, {"verdict": "wrong", "left": 1, "wrong": 1}),
        (lambda: {"unet.a.weight": torch.full((2,), torch.nan)}, {"verdict": "wrong", "left": 1, "wrong": 1}),
        (no, {"verdict": "refused", "said": "ValueError: not mine"}),
    ],
)
def test_right_left_wrong_and_refused(made: Callable[[], dict[str, Tensor]], expected: dict[str, object]) -> None:
    found = verdict(Tool(made), Path("file"), MERGED)
    assert found.items() >= expected.items()


def test_weights_of_a_part_that_the_tool_has_no_model_of_are_left() -> None:
    found = verdict(Tool(lambda: MERGED), Path("file"), MERGED | {"text_encoder.c.weight": torch.ones(2)})
    assert (found["verdict"], found["left"], found["weights"]) == ("left", 1, 3)
