import pytest

from mnemon.methods import METHODS, Learned, Method
from mnemon.models import Base
from tests.contract.table import learn, small
from tests.tiny import tiny_sd_base


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module", params=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return small(request.param)


@pytest.fixture(scope="module")
def two(base: Base, method: Method) -> list[Learned]:
    """Two concepts, the second learned on top of the first."""
    rex = learn(base, method, "rex")
    return [rex, learn(base, method, "kiki", [rex])]
