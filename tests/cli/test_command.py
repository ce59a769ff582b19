import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import mnemon.cli
from mnemon import __version__ as mnemon_version
from mnemon.files import write_json
from mnemon.world.recipe.gates import GATES
from tests.cli.conftest import Command

NO_LIBRARY = ("list", "--library", "nowhere")


def test_help_names_every_command_and_is_no_error(mnemon: Command) -> None:
    shown = mnemon("--help")
    commands = ("learn", "generate", "list", "show", "remove", "evaluate", "check", "methods", "base", "demo")
    assert shown.code == 0 and all(command in shown.out for command in commands)
    assert all(mnemon(command, "--help").code == 0 for command in commands)


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, mnemon.cli; sys.exit(bool({'torch', 'transformers', 'diffusers'} & sys.modules.keys()))"
    paths = {**os.environ, "PYTHONPATH": str(Path(mnemon.cli.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=paths, check=False).returncode == 0


@pytest.mark.parametrize("arguments", [("nonsense",), ("learn",), ("list", "--nonsense"), ("learn", "x", "--fit", "x")])
def test_wrong_usage_is_2(mnemon: Command, arguments: tuple[str, ...]) -> None:
    result = mnemon(*arguments)
    assert result.code == 2 and result.out == ""


def test_a_mistake_is_1_in_one_line_without_traceback(mnemon: Command) -> None:
    result = mnemon(*NO_LIBRARY)
    assert result.code == 1 and result.out == ""
    assert result.err.startswith("Error: nowhere") and len(result.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("--debug", *NO_LIBRARY), (*NO_LIBRARY, "--debug")])
def test_debug_lets_the_error_through(mnemon: Command, arguments: tuple[str, ...]) -> None:
    with pytest.raises(mnemon_error(), match="nowhere"):
        mnemon(*arguments)


def mnemon_error() -> type[Exception]:
    from mnemon import MnemonError

    return MnemonError


def test_a_folder_that_cannot_be_written_is_a_mistake_too(mnemon: Command, world_folder: Path) -> None:
    Path("taken").touch()
    result = mnemon("generate", "a mug", "--base", world_folder, "--steps", 1, "-n", 1, "--out", "taken")
    assert result.code == 1 and "taken" in result.err


def test_interrupted_is_130(mnemon: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mnemon.library.history.History.open", interrupt)
    result = mnemon(*NO_LIBRARY)
    assert result.code == 130 and "same command" in result.err


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(os, "environ", {})
    mnemon.cli._keep_quiet()
    warnings.showwarning("The prompt is cut.", UserWarning, "file.py", 1)
    warnings.showwarning("Somebody else's.", DeprecationWarning, "file.py", 1)
    assert capsys.readouterr().err == "Warning: The prompt is cut.\n"


def test_there_is_no_built_in_base(mnemon: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemon.world.base_folder", lambda: Path("nowhere"))
    result = mnemon("base", "info", "--json")
    assert result.code == 1 and "mnemon base build" in result.err and result.out == ""


def test_the_figures_of_the_built_in_base(mnemon: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {name: gate * 1.01 for name, gate in GATES.items()} | {"noun_accuracy": 0.5}
    write_json(Path("base/figures.json"), {"figures": figures})
    monkeypatch.setattr("mnemon.world.base_folder", lambda: Path("base"))
    value = mnemon("base", "info", "--json").json
    assert value == {"bytes": Path("base/figures.json").stat().st_size, "figures": figures}
    shown = mnemon("base", "info").out
    assert "misses 0.95" in shown and "reaches" in shown


def test_the_version_is_the_packages(mnemon: Command) -> None:
    assert mnemon("--version").out == f"mnemon {mnemon_version}\n"


def test_the_library_can_come_from_the_environment(mnemon: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNEMON_LIBRARY", "elsewhere")
    assert "elsewhere does not exist" in mnemon("list").err
    assert "nowhere does not exist" in mnemon(*NO_LIBRARY).err


def test_a_method_says_its_settings_and_what_they_mean(mnemon: Command) -> None:
    shown = mnemon("methods", "null-space")
    assert shown.code == 0 and "forget_weight" in shown.out and "lora-compose" not in shown.out
    described = mnemon("methods", "null-space", "--json").json
    assert described["settings"]["rank"] == {"default": 16, "meaning": "r, the rank of the factors."}
    assert "did you mean 'stamina'" in mnemon("methods", "stamin").err
    assert "Which one?" in mnemon("methods").out
