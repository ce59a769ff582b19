"""A large file is read for its hash once, and again whenever it may have changed."""

import os
from pathlib import Path

import pytest

from mnemon.files import file_sha256
from mnemon.models import hash_cache
from mnemon.models.hash_cache import cached_sha256


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hash_cache, "LARGE", 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read for a hash."""
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(hash_cache, "file_sha256", reading)
    return read


def test_a_file_is_read_once(weights: Path, reads: list[Path]) -> None:
    assert cached_sha256(weights) == cached_sha256(weights) == file_sha256(weights)
    assert reads == [weights]


@pytest.mark.parametrize("change", ["time", "size", "file"])
def test_a_file_that_may_have_changed_is_read_again(weights: Path, reads: list[Path], change: str) -> None:
    cached_sha256(weights)
    if change == "file":
        weights.rename(weights.with_name("old"))
    weights.write_bytes(b"others!" + b"more" * (change == "size"))
    os.utime(weights, (1e9, 1e9 + (change == "time")))
    assert cached_sha256(weights) == file_sha256(weights) and len(reads) == 2


def test_a_file_just_written_is_not_remembered(weights: Path, reads: list[Path]) -> None:
    os.utime(weights)
    cached_sha256(weights)
    assert cached_sha256(weights) and len(reads) == 2


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 1}', '{"a": [1]}'])
def test_a_damaged_cache_is_made_anew(weights: Path, reads: list[Path], damage: str) -> None:
    hash_cache._file().parent.mkdir(parents=True)
    hash_cache._file().write_text(damage)
    assert cached_sha256(weights) == cached_sha256(weights) and len(reads) == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    weights: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (weights.parent / "taken").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights.parent / "taken"))
    assert cached_sha256(weights) == cached_sha256(weights) and len(reads) == 2
