"""All runs of a results folder: those with a result, and those without."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import RunFolder
from mnemon.evaluation.run_record import Failure, RunRecord, comparable_settings

_RUN_FOLDERS = "*/order-*-seed-*"


@dataclass(frozen=True)
class Problem:
    """A run without a result: `error` says what happened, `where` in which part of the run."""

    method: str
    run: str
    error: str
    where: str


@dataclass(frozen=True)
class Results:
    """The runs under `folder`, by method, order and seed; `problems` are those that failed or have not ended."""

    folder: Path
    records: tuple[RunRecord, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, folder: str | Path) -> "Results":
        """Read every run.

        Raises:
            MnemonError: there is no run, or finished runs cannot be compared, being of different sequences or bases,
                scored in different ways or, within a method, with different settings.
        """
        folder = Path(folder)
        found = sorted(path for path in folder.glob(_RUN_FOLDERS) if path.is_dir())
        if not found:
            raise MnemonError(f"There are no runs in {folder}: it should hold folders like lora/order-0-seed-0.")
        read = [_read(path) for path in found]
        records = sorted(
            (one for one in read if isinstance(one, RunRecord)), key=lambda one: (one.method, one.order, one.seed)
        )
        _check_comparable(records)
        return cls(folder, tuple(records), tuple(one for one in read if isinstance(one, Problem)))

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that was tried."""
        return tuple(sorted({*(one.method for one in self.records), *(one.method for one in self.problems)}))

    def of(self, method: str) -> list[RunRecord]:
        return [record for record in self.records if record.method == method]

    def problems_of(self, method: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.method == method]


def _read(folder: Path) -> RunRecord | Problem:
    try:
        record = RunFolder(folder).record()
    except MnemonError as error:
        return Problem(folder.parent.name, folder.name, str(error), "reading its files")
    if record.finished:
        return record
    reached = max(record.rows, default=0)
    failure = record.failure or Failure("not finished: start it again, it goes on", f"after concept {reached}")
    return Problem(record.method, record.label, failure.error, failure.where)


def _check_comparable(records: list[RunRecord]) -> None:
    _check_same(records, "sequence", lambda record: record.sequence)
    _check_same(records, "base", lambda record: record.base)
    _check_same(records, "protocol", lambda record: record.protocol)
    _check_same(records, "concepts", lambda record: sorted(record.names))
    _check_same(records, "score settings", lambda record: dict(record.score))
    for method in {record.method for record in records}:
        of_method = [record for record in records if record.method == method]
        _check_same(of_method, "method settings", lambda record: comparable_settings(record.method, record.settings))


def _check_same(records: list[RunRecord], what: str, fact: Callable[[RunRecord], Any]) -> None:
    for record in records[1:]:
        if fact(record) != fact(records[0]):
            raise MnemonError(
                f"{records[0].folder} and {record.folder} differ in {what}, so their numbers do not compare: keep them "
                "in results folders of their own."
            )
