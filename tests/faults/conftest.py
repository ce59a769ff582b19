"""Fault injection. `pytest tests/faults` runs the short form, `make faults` every place; both say what they counted."""

from collections import Counter

import pytest

import mnemon.methods
from tests.library.fakes import Adding

COUNTS: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fake_methods(monkeypatch):
    monkeypatch.setitem(mnemon.methods.METHODS, Adding.name, Adding)


@pytest.fixture
def counts() -> Counter[str]:
    return COUNTS


def pytest_terminal_summary(terminalreporter):
    for what, number in sorted(COUNTS.items()):
        terminalreporter.write_line(f"{what}: {number}")
