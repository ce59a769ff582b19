"""`mnemon learn` in a process of its own that gets SIGKILL at a place a test chooses."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnemon.cli import main
from mnemon.training import scoring
from mnemon.training.resume import Checkpoints
from tests.processes import die, exit_code, started

AFTER = 2  # steps


def killed_while(doing: str, arguments: Sequence[object], folder: Path) -> int:
    """Run `mnemon` with these arguments in `folder`, killed while "training" or "scoring"; returns the exit code."""
    return exit_code(started(_run, doing, [str(argument) for argument in arguments], folder))


def _run(doing: str, arguments: list[str], folder: Path) -> None:
    os.chdir(folder)
    sys.argv = ["mnemon", *arguments]
    if doing == "training":
        Checkpoints.age = property(lambda self: float("inf"))  # type: ignore[assignment,method-assign]
        Checkpoints.save = _saving_then_dying(Checkpoints.save)  # type: ignore[method-assign]
    else:
        scoring.evaluate = lambda *_, **__: die()
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        main()


def _saving_then_dying(save: Any) -> Any:
    def save_and_die(self: Checkpoints, step: int) -> None:
        save(self, step)
        if step == AFTER:
            die()

    return save_and_die
