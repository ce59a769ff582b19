"""What each method learned of twelve tasks, once for all tests."""

from collections.abc import Callable
from functools import cache

import pytest

from mnemon.classification import TrainedTask
from tests.classification.small import learned, small, task

TASKS = 12
Course = Callable[[str], list[TrainedTask]]


@pytest.fixture(scope="session")
def course() -> Course:
    """By method: what was learned of twelve tasks of two classes; all in one for `joint`."""

    @cache
    def of(name: str) -> list[TrainedTask]:
        return learned(small(name, epochs=1), [task(number, images=2) for number in range(TASKS)])

    return of
