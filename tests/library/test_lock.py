"""Two writers are kept apart, readers are not."""

import errno
import os

import pytest

from mnemon.errors import MnemonError
from mnemon.library import Library
from tests.library.fakes import concept, register_methods
from tests.processes import PROCESSES, exit_code, started


def _hold(path, holding, release) -> None:
    register_methods()
    with Library.open(path).lock():
        holding.set()
        release.wait(60)


def test_the_second_writer_hears_who_holds_the_lock_and_readers_go_on(library):
    holding, release = PROCESSES.Event(), PROCESSES.Event()
    holder = started(_hold, library.path, holding, release)
    try:
        assert holding.wait(60)
        with pytest.raises(MnemonError, match=f"process {holder.pid}:"):
            library.commit(concept("rex", 1))
        assert Library.open(library.path).revision == 0
    finally:
        release.set()
        exit_code(holder)
    assert library.commit(concept("rex", 1)) == 1


def test_commits_inside_a_held_lock_work_and_it_is_free_afterwards(library):
    with library.lock():
        library.commit(concept("rex", 1))
        assert (library.path / "lock.pid").read_text() == f"{os.getpid()}\n"
    with Library.open(library.path).lock():
        pass


def test_the_lock_is_free_after_an_error(library):
    with pytest.raises(RuntimeError), library.lock():
        raise RuntimeError
    library.commit(concept("rex", 1))


def test_a_writer_that_was_overtaken_is_told(library):
    other = Library.open(library.path)
    other.commit(concept("rex", 1))
    with pytest.raises(MnemonError, match="at revision 1 by now, not 0"):
        library.commit(concept("tom", 2))
    assert Library.open(library.path).names() == ["rex"]


def test_a_file_system_without_locks_is_named_as_that(library, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(MnemonError, match=r"cannot be locked for writing \(No locks available\)"):
        library.commit(concept("rex", 1))


def test_a_library_that_was_withdrawn_is_not_written_to(library):
    (library.path / "library.json").unlink()
    with pytest.raises(MnemonError, match="is no library"):
        library.commit(concept("rex", 1))
    assert not (library.path / "history").exists()
