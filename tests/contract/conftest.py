import pytest

from mnemon.methods import METHODS, Method, TrainedConcept
from mnemon.models import Base
from tests.contract.table import OneMore, learn_all, learn_one_more, small
from tests.tiny import tiny_sd_base


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module", params=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return small(request.param)


@pytest.fixture(scope="module")
def two(base: Base, method: Method) -> list[TrainedConcept]:
    """Two concepts, the second learned after the first, or both at once."""
    return learn_all(base, method, ["rex", "kiki"])


@pytest.fixture(scope="module")
def one_more(base: Base, method: Method, two: list[TrainedConcept]) -> OneMore:
    """A third concept on top of the two."""
    return learn_one_more(base, method, two)
