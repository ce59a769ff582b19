"""A power cut: what was not flushed to the disk may be there or not, folder by folder, in the order it was done."""

import itertools
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from mnemon.library import Library, has_candidate, is_library
from mnemon.library.checking import problems
from tests.faults.scenarios import COMMANDS, contents, prepared, start
from tests.library.fakes import register_methods

pytestmark = pytest.mark.filterwarnings("ignore:.*belongs to no commit")


@dataclass
class Disk:
    """Folders and files as numbers that keep their meaning when they are renamed.

    `durable` and `pending` are by folder: its names that are on the disk for certain, and what was done to them since.
    """

    root: Path
    contents: dict[int, bytes] = field(default_factory=dict)
    durable: dict[int, dict[str, int]] = field(default_factory=dict)
    pending: dict[int, list[tuple[str, int | None]]] = field(default_factory=dict)
    log: list[Any] = field(default_factory=list)
    held: list[int] = field(default_factory=list)  # so that no number is given again

    def number(self, path: Path) -> int:
        return path.stat().st_ino

    def read(self) -> None:
        for folder in (self.root, *(path for path in self.root.rglob("*") if path.is_dir())):
            self.durable[self.number(folder)] = {path.name: self.number(path) for path in folder.iterdir()}
        self.contents = {self.number(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def snapshot(self) -> None:
        copied = {key: dict(value) for key, value in self.durable.items()}
        self.log.append(
            (copied, {key: list(value) for key, value in self.pending.items() if value}, dict(self.contents))
        )

    def done(self, path: Path, number: int | None) -> None:
        self.pending.setdefault(self.number(path.parent), []).append((path.name, number))
        self.snapshot()

    def flushed(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            number = self.number(path)
            names = self.durable.setdefault(number, {})
            for name, one in self.pending.pop(number, ()):
                _apply(names, name, one)
        else:
            self.contents[self.number(path)] = path.read_bytes()
        self.snapshot()


def _apply(names: dict[str, int], name: str, number: int | None) -> None:
    if number is None:
        names.pop(name, None)
    else:
        names[name] = number


def recorded(disk: Disk, command: Any, path: Path) -> None:
    """Run the command, with every operation on names and every flush noted."""
    real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "mkdir", "rmdir", "fsync")}

    def place(path: Any, dir_fd: int | None) -> Path:
        return Path(path) if dir_fd is None else Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / path

    def rename(source: Any, target: Any) -> None:
        number = disk.number(Path(source))
        if os.path.isfile(target):
            disk.held.append(os.open(target, os.O_RDONLY))
        real["replace"](source, target)
        disk.done(Path(target), number)
        disk.done(Path(source), None)

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        where = place(path, dir_fd)
        if where.exists():
            disk.held.append(os.open(where, os.O_RDONLY))
        real["unlink"](path, dir_fd=dir_fd)
        disk.done(where, None)

    def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        where = place(path, dir_fd)
        disk.held.append(os.open(where, os.O_RDONLY))
        real["rmdir"](path, dir_fd=dir_fd)
        disk.done(where, None)

    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        real["mkdir"](path, *args, **kwargs)
        disk.durable[disk.number(Path(path))] = {}
        disk.done(Path(path), disk.number(Path(path)))

    def fsync(descriptor: int) -> None:
        real["fsync"](descriptor)
        disk.flushed(descriptor)

    noted = {"replace": rename, "rename": rename, "unlink": unlink, "rmdir": rmdir, "mkdir": mkdir, "fsync": fsync}
    with patch.multiple(os, **noted):
        command(path)
    for descriptor in disk.held:
        os.close(descriptor)


def states(log: list[Any]) -> list[tuple[dict[int, dict[str, int]], dict[int, bytes]]]:
    """What may be on the disk: at every moment, of each folder with something pending all of it, none, or half."""
    found = []
    for durable, pending, flushed in log:
        choices = [sorted({0, len(done) // 2, len(done)}) for done in pending.values()]
        for chosen in itertools.product(*choices):
            tree = {key: dict(names) for key, names in durable.items()}
            for (folder, done), count in zip(pending.items(), chosen, strict=True):
                for name, number in done[:count]:
                    _apply(tree.setdefault(folder, {}), name, number)
            found.append((tree, flushed))
    return found


def build(tree: dict[int, dict[str, int]], flushed: dict[int, bytes], folder: int, path: Path) -> None:
    path.mkdir(parents=True)
    for name, number in tree.get(folder, {}).items():
        if number in tree:
            build(tree, flushed, number, path / name)
        else:
            (path / name).write_bytes(flushed.get(number, b""))  # never flushed: nothing of it need be there


@pytest.mark.parametrize("most", [5, pytest.param(100_000, marks=pytest.mark.faults)])
@pytest.mark.parametrize("command", ["commit", "group", "stage_and_commit", "stage_and_discard", "remove", "purge"])
def test_a_power_cut_leaves_the_old_or_the_new(command, most, tmp_path, counts):
    register_methods()
    start(tmp_path / "start")
    path = prepared(command, tmp_path / "start", tmp_path / "library")
    before, disk = contents(path), Disk(path.parent)
    with Library.open(path).lock():
        pass  # the lock's files are there
    shutil.rmtree(tmp_path / "start")
    disk.read()
    root = disk.number(path)
    recorded(disk, COMMANDS[command], path)
    after = contents(path)
    found = states(disk.log)
    for number, (tree, flushed) in enumerate(random.Random(0).sample(found, min(most, len(found)))):
        copy = tmp_path / str(number)
        build(tree, flushed, root, copy)
        assert is_library(copy)
        held = contents(copy)
        assert set(held) >= set(before) - (
            {"concept rex", "references rex"} if command in ("remove", "purge") else set()
        )
        COMMANDS[command](copy)
        assert contents(copy) == after and not problems(copy), (command, number)
        shutil.rmtree(copy)
        counts["states after a power cut"] += 1


@pytest.mark.parametrize("staged", ["group", "stage"])
def test_what_was_reported_survives_a_power_cut_right_after(staged, tmp_path, counts):
    """Nothing that is pending when a command returns is needed: not one name."""
    from mnemon.library import Candidate, put_aside
    from tests.faults.scenarios import PAIR, ROW

    register_methods()
    start(tmp_path / "library")
    path, disk = tmp_path / "library", Disk(tmp_path)
    disk.read()
    if staged == "group":
        recorded(disk, COMMANDS["group"], path)
    else:
        recorded(disk, lambda path: put_aside(Library.open(path), Candidate(PAIR, ROW, {})), path)
    tree, flushed = disk.durable, disk.contents
    build(tree, flushed, disk.number(path), tmp_path / "copy")
    assert ("tom" in Library.open(tmp_path / "copy").names()) == (staged == "group")
    assert has_candidate(Library.open(tmp_path / "copy")) == (staged == "stage")
