import pytest

import mnemon.methods
from mnemon.library import Library
from tests.library.fakes import Adding, Layering, NamedBase


@pytest.fixture(autouse=True)
def fake_methods(monkeypatch):
    for method in (Adding, Layering):
        monkeypatch.setitem(mnemon.methods.METHODS, method.name, method)


@pytest.fixture
def library(tmp_path) -> Library:
    return Library.create(tmp_path / "library", NamedBase(), Adding())
