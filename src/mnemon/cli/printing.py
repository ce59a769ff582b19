"""Tables and progress for the terminal."""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mnemon.names import printable
from mnemon.verdict import KEPT, identity_before

err = Console(stderr=True)
out = Console()


def say(text: str) -> None:
    """A line on standard output as it is: paths are not broken over lines, brackets not taken for markup."""
    out.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def note(text: str, style: str = "") -> None:
    """A line on standard error."""
    err.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


class Notes(logging.Handler):
    """Shows what the package logs: remarks in plain, warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage(), style="yellow" if record.levelno >= logging.WARNING else "")


def show_log() -> None:
    """From now on what the package logs is shown, once."""
    log = logging.getLogger("mnemon")
    if not any(isinstance(handler, Notes) for handler in log.handlers):
        log.addHandler(Notes())
    log.setLevel(logging.INFO)


def print_json(value: Any) -> None:
    """For programs: one JSON value on standard output and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


class Bar:
    """A bar of `progress`: called with the steps done, the steps in all, and numbers to show."""

    def __init__(self, shown: Progress, title: str, after: float) -> None:
        self._shown, self._start = shown, time.monotonic() + after
        self._task = shown.add_task(title, total=None, logs="")
        self._scored = 0
        self.to_score: int | None = None

    def __call__(self, done: int, total: int, logs: Mapping[str, float]) -> None:
        if time.monotonic() >= self._start:
            self._shown.start()
        text = " ".join(f"{name} {value:.4f}" for name, value in logs.items() if name != "rate")
        self._shown.update(self._task, completed=done, total=total, logs=text)

    def count(self, done: int, total: int) -> None:
        self(done, total, {})

    def rename(self, title: str) -> None:
        self._shown.update(self._task, description=title, logs="")

    def scored(self, concept: str | None, images: object) -> None:
        """For `on_images`: scoring takes its time too, and has a bar of its own; at most `to_score` sets of images."""
        if not self._scored:
            self._shown.update(self._task, visible=False)
            self._task = self._shown.add_task("scoring", total=self.to_score, logs="")
        self._scored += 1
        what = "general prompts" if concept is None else f"<{concept}>"
        self._shown.update(self._task, completed=self._scored, description=f"scoring, {what} done")


@contextmanager
def progress(title: str, after: float = 0.0) -> Iterator[Bar]:
    """A bar on standard error, where that is a terminal, moved by calling what is yielded; it appears if there is
    still something to do after so many seconds."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[logs]}"),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    bar = Bar(shown, title, after)
    if not after:
        shown.start()
    try:
        yield bar
    finally:
        shown.stop()


@contextmanager
def stopping_between_steps(bar: Bar) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """Yields what is to be called after each step: between the first step and the last Ctrl-C waits for the end of the
    step, so that the checkpoint has all of it. A second Ctrl-C does not wait."""
    asked = training = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked or not training:
            raise KeyboardInterrupt
        asked = True
        note("Stopping after this step; Ctrl-C again does not wait.")

    def on_step(done: int, total: int, logs: Mapping[str, float]) -> None:
        nonlocal training
        training = done < total
        bar(done, total, logs)
        if asked:
            raise KeyboardInterrupt

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # by a shell, for a job in the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield on_step
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield on_step
    finally:
        signal.signal(signal.SIGINT, before)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    made = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for row in rows:
        made.add_row(*(escape(printable(str(cell))) for cell in row))
    return made


def row_table(row: Mapping[str, Any], library: Any) -> Table:
    """One row of the score matrix: every concept so far, its identity when it was last scored, now, and the change."""
    entries, before = library.concepts(), earlier_scores(row, library)
    lines = []
    for name, scores in row["concepts"].items():
        identity, image = scores["identity_alignment"], scores["image_alignment"]
        was = None if identity is None else before.get(name)
        lines.append(
            (name, number(was), number(identity), _change(was, identity), share(identity, scores["identity_ceiling"]),
             number(image), share(image, scores["image_ceiling"]), number(scores["text_alignment"]),
             _against(scores, entries.get(name)))
        )  # fmt: skip
    made = table(("concept", "was", "now", "change", "share", "image", "share", "text", "scored against"), lines)
    made.caption = (
        "was, now: identity alignment; share: of what the photos reach among themselves\n"
        f"text alignment of general prompts: {number(row['general']['text_alignment'])}"
    )
    if kept := [scores["movement"] for scores in row["concepts"].values() if "sampled" in scores]:
        made.caption += (
            f"\n{len(kept)} keep earlier scores: what their prompts read gives keys and values that moved by "
            f"{max(kept):.1%} at most (`mnemon learn --score all` samples them)"
        )
    return made


def earlier_scores(row: Mapping[str, Any], library: Any) -> dict[str, float]:
    """Each concept's identity alignment when it was last scored before this row."""
    return identity_before(row, list(library.rows().values()))


def _change(was: float | None, now: float | None) -> Text | str:
    """The change, red where something was forgotten."""
    if was is None or now is None:
        return "–"
    style = "red" if now < KEPT * was else "green" if now > was else ""
    return Text(f"{now - was:+.3f}", style)


def _against(scores: Mapping[str, Any], entry: Any) -> str:
    """What a concept was scored against; `entry` is its commit, None before that."""
    if not scores["references"] or entry is None:
        return "–"
    photos = "held-out photos" if entry.settings.get("held_out") else "training photos"
    photos = "photos given" if "imported" in entry.settings else photos
    return f"{photos}, at revision {scores['sampled']}" if "sampled" in scores else photos


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def fact(value: Any) -> str:
    """What a method noted about a concept: a number, a word, or several of them by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact(one)}" for name, one in value.items()) or "none"
    return number(value) if isinstance(value, float) else str(value)


def share(value: float | None, whole: float | None) -> str:
    return "–" if value is None or not whole else f"{value / whole:.0%}"
