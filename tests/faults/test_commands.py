"""Whatever a command is hit by, and wherever: the library opens, and the same command again ends the same."""

import errno
import os
import signal
import warnings

import pytest

from mnemon.errors import MnemonError
from mnemon.library import Library, is_library
from mnemon.library.checking import problems
from tests.faults.injection import ERRORS, PLACES, failing, instead_of
from tests.faults.scenarios import COMMANDS, contents, prepared, start
from tests.library.fakes import register_methods
from tests.processes import die, exit_code, started

MOST = 400
pytestmark = pytest.mark.filterwarnings("ignore:.*belongs to no commit")


def every(short: int):
    return pytest.mark.parametrize("every", [short, pytest.param(1, marks=pytest.mark.faults)])


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    register_methods()
    path = tmp_path_factory.mktemp("faults") / "start"
    start(path)
    return path


@pytest.fixture(scope="module")
def ends(template, tmp_path_factory):
    """Command -> what the library holds after it."""
    found = {}
    for name, command in COMMANDS.items():
        path = prepared(name, template, tmp_path_factory.mktemp(name) / "library")
        command(path)
        found[name] = contents(path)
    return found


def _check(command, path, ends) -> None:
    """The library opens with nothing half, and the command given again ends as it does undisturbed."""
    if is_library(path):
        Library.open(path).learned()
    COMMANDS[command](path)
    assert contents(path) == ends[command]
    assert not problems(path)
    assert not [file for file in path.rglob("*") if file.suffix == ".part" and "salvaged" not in file.name]


def _killed(command, path, number) -> None:
    register_methods()
    warnings.simplefilter("ignore")
    with instead_of(number, die):
        COMMANDS[command](path)


@every(41)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill(command, every, template, ends, tmp_path, counts):
    for number in range(1 if every == 1 else 8, MOST, every):
        path = prepared(command, template, tmp_path / str(number))
        if exit_code(started(_killed, command, path, number)) != -signal.SIGKILL:
            break
        _check(command, path, ends)
        counts["kills, the same bits after the same command again"] += 1
    else:
        pytest.fail(f"more than {MOST} operations")


@every(23)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_of_the_disk(command, every, template, ends, tmp_path, counts):
    """It is one sentence that names a file and the cause, or is passed over where nothing is lost by it."""
    for number in range(1 if every == 1 else 3, MOST, every):
        path = prepared(command, template, tmp_path / str(number))
        with instead_of(number, failing(number)) as done:
            try:
                COMMANDS[command](path)
            except MnemonError as error:
                assert "/" in str(error) and os.strerror(ERRORS[number % len(ERRORS)]) in str(error)
        if len(done) < number:
            break
        _check(command, path, ends)
        counts["errors of the disk, one sentence with file and cause"] += 1
    else:
        pytest.fail(f"more than {MOST} operations")


def test_a_full_disk_stays_full(template, ends, tmp_path, counts):
    """From some write on every further one fails, as on a real one."""
    for number in range(1, 60, 20):
        path = prepared("commit", template, tmp_path / str(number))
        with pytest.MonkeyPatch.context() as patch:
            left = [number]

            def full(real, left=left):
                def operation(*args, **kwargs):
                    left[0] -= 1
                    if left[0] <= 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    return real(*args, **kwargs)

                return operation

            for name in ("open", "write", "write tensors", "mkdir"):
                where, call = PLACES[name]
                patch.setattr(where, call, full(getattr(where, call)))
            try:
                COMMANDS["commit"](path)
            except MnemonError as error:
                assert "No space left on device" in str(error) and "/" in str(error)
        _check("commit", path, ends)
        counts["full disks"] += 1
