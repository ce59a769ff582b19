"""The command `mnemon`: a thin face over the API."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import mnemon.cli.demo as demo
from mnemon.cli import bases, libraries
from mnemon.errors import MnemonError

app = typer.Typer(
    name="mnemon",
    help="Teach one text-to-image model concept after concept, keep them all, and see the numbers that prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
libraries.add_to(app)
app.add_typer(bases.app, name="base")
demo.add_to(app)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """What every command understands."""


def main() -> None:
    """Run the command: exit code 0 done, 1 a mistake that can be mended, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except MnemonError as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/] {escape(str(error))}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted. Run the same command again to go on from the last snapshot.")
        raise SystemExit(130) from None
