"""One training at a time, in a thread of its own: it goes on when the page is closed; it can be stopped and resumed."""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mnemon import api
from mnemon.data import Concept, concept_from_folder
from mnemon.errors import MnemonError
from mnemon.files import write_json
from mnemon.training import PhotoSettings, TrainingSettings
from mnemon.verdict import identity_before, in_words
from mnemon.web.records import read_record
from mnemon.web.workspace import Workspace

UNFINISHED = "unfinished.json"
PREVIEWS = 5
"""So many times in a training images are sampled."""
STEPS = range(1, 100_001)


@dataclass(frozen=True)
class Request:
    """What is to be learned; written beside the photos until it is."""

    name: str
    class_noun: str | None = None
    steps: int | None = None
    seed: int = 0
    scored: bool = True
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps not in STEPS:
            raise MnemonError(f"{self.steps} steps cannot be taken: choose 1 to {STEPS[-1]:,}, for example 200.")


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        phase: what is going on; "done", "stopped" and "failed" are ends.
        losses: (step, loss) of the steps so far.
        scoring: how many concepts are scored, and how many there are.
        seconds: of the steps taken since it began, for the estimate of what is left.
        message: for the end, in words.
        row: the scores at the end.
    """

    name: str
    phase: Literal["preparing", "learning", "scoring", "done", "stopped", "failed"] = "preparing"
    step: int = 0
    first_step: int = 0
    steps: int = 0
    scoring: tuple[int, int] = (0, 0)
    losses: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    message: str = ""
    row: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        return self.phase in ("preparing", "learning", "scoring")

    @property
    def seconds_left(self) -> float | None:
        """Of the steps that are left; None before the second one."""
        taken = self.step - self.first_step
        return (self.steps - self.step) * self.seconds / taken if taken > 0 else None


class _Stopped(Exception):
    """Raised between two steps."""


class Training:
    """Runs one request."""

    def __init__(self, workspace: Workspace, request: Request) -> None:
        self._workspace, self.request = workspace, request
        self.progress = Progress(request.name)
        self._stop = threading.Event()
        self._began = 0.0
        self._thread = threading.Thread(target=self._run, name=f"learn-{request.name}", daemon=True)

    def start(self) -> None:
        write_json(self._workspace.photos / self.request.name / UNFINISHED, asdict(self.request))
        self._thread.start()

    def stop(self) -> None:
        """Ends after the step that is being taken; the training is kept, and goes on with `resume`."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def previews(self) -> list[Path]:
        """Images sampled so far, the newest first; those of an earlier training under this name are overtaken."""
        folder = self._workspace.library / "previews" / self.request.name
        files = sorted(folder.glob("step-*.png"), reverse=True)
        return [file for file in files if int(file.stem.split("-")[1]) <= self.progress.step]

    def _run(self) -> None:
        try:
            result = self._learn()
        except _Stopped:
            step, of = self.progress.step, self.progress.steps
            self._end("stopped", f"Stopped after {step} of {of} steps, which are kept: resume when you like.")
        except Exception as error:
            notes = " ".join(getattr(error, "__notes__", ()))
            known = isinstance(error, MnemonError | OSError)
            self._end("failed", f"{error if known else f'{type(error).__name__}: {error}'} {notes}".strip())
        else:
            (self._workspace.photos / self.request.name / UNFINISHED).unlink(missing_ok=True)
            self.progress = replace(self.progress, row=result.row)
            said = f"learned in {result.training_seconds:.0f} s; the library is at revision {result.revision}."
            self._end("done", f"{said} {self._verdict(result.row)}".strip())

    def _learn(self) -> api.LearnResult:
        workspace, request = self._workspace, self.request
        with workspace.model(f"learning <{request.name}>") as base:
            folder = workspace.photos / request.name
            concept = _concept(folder / "train", request)
            held_out = _concept(folder / "held-out", request) if request.held_out else None
            opened = workspace.opened()
            steps = request.steps or (opened.method if opened else workspace.new_method()).steps
            return api.learn(
                workspace.library,
                concept,
                base=base,
                method=None if opened else workspace.method,
                references=held_out,
                photos=PhotoSettings(),
                training=TrainingSettings(
                    steps=request.steps, seed=request.seed, preview_every=max(steps // PREVIEWS, 1)
                ),
                scored=request.scored,
                on_step=self._on_step,
                on_images=self._on_images,
            )

    def _on_step(self, done: int, total: int, logs: Mapping[str, float]) -> None:
        now = time.monotonic()
        if not self.progress.steps:
            self._began = now
            self.progress = replace(self.progress, first_step=done)
        losses = (*self.progress.losses, (done, logs["loss"]))
        self.progress = replace(
            self.progress, phase="learning", step=done, steps=total, losses=losses, seconds=now - self._began
        )
        if done == total:
            concepts = len(self._workspace.called()) + 1
            self.progress = replace(self.progress, phase="scoring", scoring=(0, concepts + 1))
        elif self._stop.is_set():
            raise _Stopped

    def _on_images(self, name: str | None, images: Tensor) -> None:
        done, total = self.progress.scoring
        self.progress = replace(self.progress, scoring=(min(done + 1, total), total))

    def _verdict(self, row: Mapping[str, Any] | None) -> str:
        """The scores in words."""
        opened = self._workspace.opened()
        return in_words(row, identity_before(row, list(opened.rows().values()))) if row and opened else ""

    def _end(self, phase: Literal["done", "stopped", "failed"], message: str) -> None:
        self.progress = replace(self.progress, phase=phase, message=f"<{self.request.name}>: {message}")


class Trainings:
    """The training of a workspace, if there is one."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.current: Training | None = None

    def start(self, request: Request) -> Training:
        """Raises:
        MnemonError: another training is running, or the name is taken.
        """
        self.check_free()
        if (opened := self._workspace.opened()) is not None:
            opened.check_name(request.name)
        self.current = Training(self._workspace, request)
        self.current.start()
        return self.current

    def check_free(self) -> None:
        """Raises:
        MnemonError: the model is in use.
        """
        if self._workspace.doing or (self.current and self.current.progress.running):
            doing = self._workspace.doing or "learning"
            raise MnemonError(f"The model is busy {doing}: wait until that has finished, or stop it.")

    def unfinished(self) -> list[Request]:
        """What was begun and is not learned: stopped, or the server was killed."""
        running = self.current.request.name if self.current and self.current.progress.running else None
        learned = self._workspace.called()
        files = sorted(self._workspace.photos.glob(f"*/{UNFINISHED}"))
        found = [read_record(file, Request) for file in files]
        return [one for one in found if one is not None and one.name != running and one.name not in learned]


def _concept(folder: Path, request: Request) -> Concept:
    return concept_from_folder(folder, request.name, request.class_noun)
