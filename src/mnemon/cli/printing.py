"""Tables and progress for the terminal."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

err = Console(stderr=True)
out = Console()

OnStep = Callable[[int, int, Mapping[str, float]], None]


def say(text: str) -> None:
    """A line on standard output as it is: paths are not broken over lines, brackets not taken for markup."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def note(text: str, style: str = "") -> None:
    """A line on standard error."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """For programs: one JSON value on standard output and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def progress(title: str) -> Iterator[OnStep]:
    """A bar on standard error, moved by calling what is yielded."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[logs]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(title, total=None, logs="")

        def step(done: int, total: int, logs: Mapping[str, float]) -> None:
            text = " ".join(f"{name} {value:.4f}" for name, value in logs.items())
            bar.update(task, completed=done, total=total, logs=text)

        yield step


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    made = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def row_table(row: Mapping[str, Any], library: Any) -> Table:
    """One row of the score matrix: every concept so far, against what photos of it reach against one another."""
    entries = library.concepts()
    lines = []
    for name, scores in row["concepts"].items():
        held_out = name in entries and entries[name].settings.get("held_out")
        identity, image = scores["identity_alignment"], scores["image_alignment"]
        against = "–" if not scores["references"] else "held-out photos" if held_out else "training photos"
        lines.append(
            (name, number(identity), share(identity, scores["identity_ceiling"]), number(image),
             share(image, scores["image_ceiling"]), number(scores["text_alignment"]), against)
        )  # fmt: skip
    columns = ("concept", "identity", "of ceiling", "image", "of ceiling", "text", "scored against")
    made = table(columns, lines)
    made.caption = f"text alignment of general prompts: {number(row['general']['text_alignment'])}"
    return made


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None, whole: float | None) -> str:
    return "–" if value is None or not whole else f"{value / whole:.0%}"
