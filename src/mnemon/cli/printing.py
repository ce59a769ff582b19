"""Tables and progress for the terminal."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

err = Console(stderr=True)
out = Console()

OnStep = Callable[[int, int, Mapping[str, float]], None]


def print_json(value: Any) -> None:
    """For programs: one JSON value on standard output and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def progress(title: str) -> Iterator[OnStep]:
    """A bar on standard error, moved by calling what is yielded."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[logs]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=None, logs="")

        def step(done: int, total: int, logs: Mapping[str, float]) -> None:
            text = " ".join(f"{name} {value:.4f}" for name, value in logs.items())
            bar.update(task, completed=done, total=total, logs=text)

        yield step


def row_table(row: Mapping[str, Any]) -> Table:
    """One row of the score matrix: every concept so far, against its ceiling."""
    table = Table(title=f"After concept {len(row['concepts'])}", title_justify="left")
    for column in ("concept", "identity", "of ceiling", "image", "of ceiling", "text", "scored against"):
        table.add_column(column, justify="left" if column in ("concept", "scored against") else "right")
    for name, scores in row["concepts"].items():
        table.add_row(
            name,
            number(scores.get("identity_alignment")),
            share(scores.get("identity_alignment"), scores.get("identity_ceiling")),
            number(scores.get("image_alignment")),
            share(scores.get("image_alignment"), scores.get("image_ceiling")),
            number(scores.get("text_alignment")),
            "held-out photos" if scores.get("held_out") else "training photos",
        )
    return table


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None, whole: float | None) -> str:
    return "–" if value is None or not whole else f"{value / whole:.0%}"
