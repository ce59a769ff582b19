"""Tables and progress for the terminal."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mnemon.names import printable

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
        """For `on_images`: scoring takes its time too."""
        self.rename("scoring general prompts" if concept is None else f"scoring <{concept}>")


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


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    made = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for row in rows:
        made.add_row(*(escape(printable(str(cell))) for cell in row))
    return made


def row_table(row: Mapping[str, Any], library: Any) -> Table:
    """One row of the score matrix: every concept so far, how its identity changed since it was last scored, and what
    photos of it reach against one another."""
    entries, before = library.concepts(), _identity_before(row, library)
    lines = []
    for name, scores in row["concepts"].items():
        identity, image = scores["identity_alignment"], scores["image_alignment"]
        change = None if identity is None or name not in before else identity - before[name]
        lines.append(
            (name, number(identity), "–" if change is None else f"{change:+.3f}",
             share(identity, scores["identity_ceiling"]), number(image), share(image, scores["image_ceiling"]),
             number(scores["text_alignment"]), _against(scores, entries.get(name)))
        )  # fmt: skip
    columns = ("concept", "identity", "change", "of ceiling", "image", "of ceiling", "text", "scored against")
    made = table(columns, lines)
    made.caption = f"text alignment of general prompts: {number(row['general']['text_alignment'])}"
    if kept := [scores["movement"] for scores in row["concepts"].values() if "sampled" in scores]:
        made.caption += (
            f"\n{len(kept)} keep earlier scores: what their prompts read gives keys and values that moved by "
            f"{max(kept):.1%} at most (`mnemon learn --score all` samples them)"
        )
    return made


def _identity_before(row: Mapping[str, Any], library: Any) -> dict[str, float]:
    """Each concept's identity alignment in the newest other row with the same encoders and settings that has it."""
    found: dict[str, float] = {}
    for other in library.rows().values():
        if other != row and (other["encoders"], other["settings"]) == (row["encoders"], row["settings"]):
            identities = {name: scores["identity_alignment"] for name, scores in other["concepts"].items()}
            found |= {name: value for name, value in identities.items() if value is not None}
    return found


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
