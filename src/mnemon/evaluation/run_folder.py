"""The folder of one benchmark run: everything that is written to it and read from it, in one place.

  <out>/<method>/order-<o>-seed-<s>/
    job.json              what was asked, versions, machine
    rows.json             {"<t>": row}; 0 is the bare base
    features.safetensors  "pictures/<t>/<name>/image|identity", "references/<name>/image|identity", "general/<t>/image"
    figures.json          what every report works out of the features, for when these are left out
    costs.json            seconds, bytes, parameters, memory
    strips/<t>-<name>.png the first images of a scored cell
    library/              the concepts learned so far, as any library
    training/             the checkpoint of the concept being learned
    failed.json           {"error", "where", "traceback"}, if the run failed
    progress.json         how far the run is, while it goes on in another process

Everything but job.json may be missing: a run may have failed, been killed, or lie in a folder of results from which the
features were left out.
"""

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.evaluation.run_record import Failure, RunRecord, comparable_settings
from mnemon.files import write_json, write_png
from mnemon.tensor_files import write_safetensors

UNSAID = {"protocol": "paper", "hold_out": True}
"""What holds of a run whose job.json does not say."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: concepts done, where learning and scoring are half of each, concepts in all, and what it does
    now."""

    done: float
    total: int
    doing: str


class RunFolder:
    """What a run has written so far: `rows`, `costs` and `alone` are read on opening, the rest when it is asked for.
    Every writing leaves the old or the new file.

    Raises:
        MnemonError: a file cannot be read; here and in all methods, which say the file and the entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = dict(self._json("rows").value)
        self.costs: dict[str, Any] = dict(self._json("costs").value)
        self.alone: dict[str, dict[str, Any]] = dict(self._json("alone").value)

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raises:
        MnemonError: the run was begun with another value of one of these entries of job.json.
        """
        begun = self._json("job").value
        if not begun:
            return
        begun = _comparable(begun)
        for key, value in _comparable(asked).items():
            if begun.get(key) != value:
                raise MnemonError(
                    f"{self.path} was begun with another value of '{key}'{_difference(begun.get(key), value)}: "
                    "ask for the same, or choose another results folder."
                )

    def begin(self, job: Mapping[str, Any]) -> None:
        """Note what is done and where; an earlier failure is taken back."""
        write_json(self.path / "job.json", job)
        (self.path / "failed.json").unlink(missing_ok=True)

    def finished(self, count: int, alone: bool = False) -> bool:
        """Whether all of `count` concepts are learned and scored, and if asked for also scored `alone`."""
        missing = alone and len(self.alone) < count
        return str(count) in self.rows and bool(self.costs) and not missing and self.failure() is None

    def write_row(
        self, count: int, row: dict[str, Any], features: Mapping[str, Tensor], strips: Mapping[str, Image.Image]
    ) -> None:
        """Keep what was measured after `count` concepts; they are scored once the row is there, so that comes last."""
        for name, strip in strips.items():
            write_png(self.path / "strips" / f"{count}-{name}.png", strip)
        write_safetensors(self.path / "features.safetensors", features)
        self.write_costs()
        self.rows[str(count)] = row
        write_json(self.path / "rows.json", self.rows)

    def write_costs(self) -> None:
        write_json(self.path / "costs.json", self.costs)

    def write_alone(self, name: str, scores: Mapping[str, Any]) -> None:
        self.alone[name] = dict(scores)
        write_json(self.path / "alone.json", self.alone)

    def write_figures(self, figures: Mapping[str, float], confusion: Sequence[Sequence[float]] | None) -> None:
        """Keep what was worked out of the features, for when these are left out."""
        write_json(self.path / "figures.json", {"figures": figures, "confusion": confusion})

    def fail(self, error: str, where: str, details: BaseException | None = None) -> None:
        lines = traceback.format_exception(details) if details else []
        write_json(self.path / "failed.json", {"error": error, "where": where, "traceback": "".join(lines)})

    def failure(self) -> Failure | None:
        failed = self._json("failed").value
        return Failure(str(failed.get("error", "unknown")), str(failed.get("where", "unknown"))) if failed else None

    def write_progress(self, progress: Progress) -> None:
        write_json(self.path / "progress.json", asdict(progress))

    def progress(self) -> Progress | None:
        progress = self._json("progress").value
        return Progress(**progress) if progress else None

    def end(self) -> None:
        (self.path / "progress.json").unlink(missing_ok=True)

    def features(self) -> dict[str, Tensor]:
        path = self.path / "features.safetensors"
        try:
            return load_file(path) if path.is_file() else {}
        except (OSError, SafetensorError) as error:
            raise MnemonError(f"{path} cannot be read ({error}): run that job again.") from None

    def record(self) -> RunRecord:
        """All of it, as reports read it.

        Raises:
            MnemonError: there is no job, or a file cannot be read or lacks what it must hold; says which.
        """
        job, figures = self._json("job"), self._json("figures")
        if not job.value:
            raise MnemonError(f"There is no {job.path}: this is not the folder of a benchmark run.")
        concepts = job.need("concepts", list)
        if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in concepts):
            raise MnemonError(f"{job.path} has a concept without a name: run that job again.")
        return RunRecord(
            folder=self.path,
            sequence=job.need("sequence", str),
            base=str(job.value.get("base", "")),
            protocol=str({**UNSAID, **job.value}["protocol"]),
            method=job.need("method", str),
            settings=job.need("settings", dict),
            departures=job.value.get("set") or {},
            order=job.need("order", int),
            seed=job.need("seed", int),
            names=tuple(one["name"] for one in concepts),
            hold_out=bool({**UNSAID, **job.value}["hold_out"]),
            not_held_out=tuple(one["name"] for one in concepts if not one.get("held_out", True)),
            score=job.need("score", dict),
            versions=job.value.get("versions") or {},
            machine=job.value.get("machine") or {},
            rows=self._checked_rows(),
            alone=self.alone,
            features=self.features(),
            known_figures=figures.numbers("figures"),
            known_confusion=figures.value.get("confusion") or (),
            costs=self._checked_costs(),
            strips=self._strips(),
            failure=self.failure(),
        )

    def _json(self, name: str) -> "_Object":
        return _Object.read(self.path / f"{name}.json")

    def _checked_rows(self) -> dict[int, dict[str, Any]]:
        for t, row in self.rows.items():
            if not t.isdecimal() or not isinstance(row, dict) or not isinstance(row.get("concepts", {}), dict):
                raise MnemonError(f"{self.path / 'rows.json'} has no row of scores at '{t}': run that job again.")
        return {int(t): row for t, row in self.rows.items()}

    def _checked_costs(self) -> dict[str, Any]:
        costs = _Object(self.path / "costs.json", self.costs)
        by_name = {key: costs.numbers(key) for key in ("seconds", "bytes") if self.costs}
        known = {key for key, value in self.costs.items() if value is not None} - by_name.keys()
        return by_name | {key: float(costs.need(key, int | float)) for key in known}

    def _strips(self) -> dict[tuple[int, str], Path]:
        named = {path: path.stem.partition("-") for path in sorted((self.path / "strips").glob("*.png"))}
        return {(int(t), name): path for path, (t, _, name) in named.items() if t.isdecimal() and name}


@dataclass(frozen=True)
class _Object:
    """The JSON object in `path`. Every `MnemonError` says which file, which entry, and what it should be."""

    path: Path
    value: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_Object":
        """Empty if there is no such file."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path, {})
        except (OSError, ValueError) as error:
            raise MnemonError(f"{path} cannot be read as JSON ({error}): run that job again.") from None
        if not isinstance(value, dict):
            raise MnemonError(f"{path} should hold a JSON object, not a {type(value).__name__}: run that job again.")
        return cls(path, value)

    def need(self, key: str, kind: Any) -> Any:
        """The entry, which must be of one of the types `_KINDS`."""
        value = self.value.get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or value == []:
            raise self._wrong(key, _KINDS[kind])
        return value

    def numbers(self, key: str) -> dict[str, float]:
        """An object of numbers by name; empty where it is not there."""
        numbers = self.value.get(key) or {}
        if not isinstance(numbers, dict) or not all(isinstance(one, int | float) for one in numbers.values()):
            raise self._wrong(key, "a number by name")
        return {name: float(one) for name, one in numbers.items()}

    def _wrong(self, key: str, expected: str) -> MnemonError:
        has = repr(self.value[key])[:80] if key in self.value else "nothing"
        return MnemonError(f"{self.path} needs '{key}' as {expected}, it has {has}: run that job again.")


_KINDS: dict[Any, str] = {
    str: "a text", int: "a whole number", int | float: "a number", dict: "an object",
    list: "a list of objects, at least one",
}  # fmt: skip


def _comparable(job: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON reads it; the method's settings as `comparable_settings`."""
    value: dict[str, Any] = UNSAID | json.loads(json.dumps(job))
    if "settings" not in value:
        return value
    return {**value, "settings": comparable_settings(str(value.get("method")), value["settings"])}


def _difference(begun: Any, asked: Any) -> str:
    if isinstance(begun, dict) and isinstance(asked, dict):
        other = [f"{key} {begun.get(key)}, not {asked[key]}" for key in asked if begun.get(key) != asked[key]]
        return f" ({', '.join(other)})"
    return "" if isinstance(begun, list) else f" ({begun}, not {asked})"
