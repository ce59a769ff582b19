"""`mnemon demo`: the main job, from photos to proof, in some minutes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mnemon.cli.printing import err, note, number, out, print_json, progress, row_table, say, table


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo; the same folder resumes.")] = Path(
        "demo"
    ),
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Teach the built-in model five concepts, one after another, with stamina and with plain LoRA, and compare."""
    from mnemon.cli.demo_run import DemoEvents, run_demo
    from mnemon.models import load_base

    with progress("the built-in model") as bar:

        def start(method: str, concept: str) -> None:
            note(f"{method} learns <{concept}>", style="bold")
            bar.rename(f"<{concept}>")

        def row(library: Any, values: dict[str, Any]) -> None:
            err.print(row_table(values, library))

        summary = run_demo(to, load_base("world"), DemoEvents(start, bar, row))
    if json_output:
        print_json(summary)
        return
    columns = ("method", "just learned", "at the end", "retention", "seconds")
    keys = ("learning_identity", "final_identity", "retention", "seconds")
    rows = [
        (name, *(number(values[key]) for key in keys[:-1]), f"{values['seconds']:.0f}")
        for name, values in summary["methods"].items()
    ]
    say("Identity alignment with photos that were not trained on, mean over the five concepts:")
    out.print(table(columns, rows))
    say(f"Images, matrices, forgetting: {to / 'report.html'}")
