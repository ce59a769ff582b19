"""The command `mnemon`: a thin wrapper of the API."""

import os
import sys
import warnings
from typing import Annotated, Any

import typer

import mnemon
import mnemon.cli.demo as demo
from mnemon.cli import bases, benching, classify, exchange, history, init, libraries, planning, web
from mnemon.cli.printing import note, say, show_log
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
init.add_to(app)
history.add_to(app)
exchange.add_to(app)
planning.add_to(app)
web.add_to(app)
app.add_typer(bases.app, name="base")
app.add_typer(classify.app, name="classify")
demo.add_to(app)
benching.add_to(app)

DEBUG = "--debug"
INTERRUPTED = 130


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"mnemon {mnemon.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of an error; before or after COMMAND.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and stop.")
    ] = False,
) -> None:
    """What every command understands."""
    show_log()


def main() -> None:
    """Run the command: exit code 0 done, 1 a mistake that can be mended, 2 wrong usage, 130 interrupted."""
    debug = DEBUG in sys.argv
    _keep_quiet()
    try:
        app([argument for argument in sys.argv[1:] if argument != DEBUG])
    except (MnemonError, OSError) as error:  # OSError: a folder that may not be read
        if debug:
            raise
        note(f"Error: {error}", style="bold red")
        for kept in getattr(error, "__notes__", ()):
            note(kept)
        raise SystemExit(1) from None
    except SystemExit as end:
        if end.code == INTERRUPTED:
            note("Interrupted. Training, a benchmark and the demo go on with the same command.")
        raise


def _keep_quiet() -> None:
    """Standard error is for what concerns the user: not for other libraries' remarks, nor for the lines of ours that
    warn. By the environment, since the libraries are imported only by commands that need them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if category is UserWarning:
        note(f"Warning: {message}", style="yellow")
