"""A crash at any moment of a commit leaves the old or the new state, and never stops the next writer."""

import os
import signal

import pytest

from mnemon.errors import MnemonError
from mnemon.library import Library
from tests.library.fakes import Adding, NamedBase, concept, register_methods, same
from tests.processes import die, exit_code, started

MOVED_ASIDE = "ignore:.*belongs to no commit"


class Crash(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


def _crash_at(monkeypatch, call: str, number: int) -> list[int]:
    """Let the call of `os.<call>` with this number raise; returns a list that counts the calls."""
    real, calls = getattr(os, call), []

    def counting(*args, **kwargs):
        calls.append(len(calls))
        if len(calls) == number:
            raise Crash
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, counting)
    return calls


def _prepared(path) -> Library:
    library = Library.create(path, NamedBase(), Adding())
    library.commit(concept("rex", 1))
    return library


@pytest.mark.filterwarnings(MOVED_ASIDE)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_crash_at_any_write_leaves_the_old_or_the_new_state(tmp_path, monkeypatch, call):
    number, crashed, states = 1, True, set()
    while crashed:
        library = _prepared(tmp_path / str(number))
        with monkeypatch.context() as patch:
            _crash_at(patch, call, number)
            try:
                library.commit(concept("tom", 2))
                crashed = False
            except Crash:
                pass
        after = Library.open(library.path)
        states.add(after.revision)
        assert after.names() == ["rex", "tom"][: after.revision]
        assert same(after.learned()[0], concept("rex", 1))
        if after.revision == 1:
            after.commit(concept("tom", 3))
            assert same(Library.open(library.path).learned()[1], concept("tom", 3))
        number += 1
    assert number > 4  # at least deltas, tokens and history were tried
    assert states == {1, 2}


@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_while_creating_can_be_tried_again(tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch:
        _crash_at(patch, "fsync", number)
        with pytest.raises(Crash):
            Library.create(tmp_path / "library", NamedBase(), Adding())
    try:
        library = Library.open(tmp_path / "library")
    except MnemonError:
        library = Library.create(tmp_path / "library", NamedBase(), Adding())
    assert library.commit(concept("rex", 1)) == 1


def _commit_and_die(path, number: int) -> None:
    register_methods()
    real, calls = os.replace, []

    def dying(*args):
        calls.append(args)
        if len(calls) == number:
            die()
        real(*args)

    os.replace = dying
    Library.open(path).commit(concept("tom", 2))


@pytest.mark.filterwarnings(MOVED_ASIDE)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_writer_leaves_no_lock_and_no_rubbish(tmp_path, number):
    library = _prepared(tmp_path / "library")
    assert exit_code(started(_commit_and_die, library.path, number)) == -signal.SIGKILL
    after = Library.open(library.path)
    assert after.names() == ["rex"]
    with after.lock():
        left = {path.relative_to(library.path) for path in library.path.rglob("*")}
    assert not any(path.suffix == ".part" or ("tom" in path.name and path.parts[0] != "lost") for path in left)
    after.commit(concept("tom", 3))
    assert same(Library.open(library.path).learned()[1], concept("tom", 3))
