import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon import api
from mnemon.cli import main
from mnemon.data import concept_from_folder
from mnemon.evaluation import EvalSettings
from mnemon.files import write_text
from mnemon.methods.lora import Lora
from mnemon.models import Base, loading
from mnemon.training import TrainingSettings
from mnemon.world import thing_concept


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value and nothing else."""
        return json.loads(self.out)


Command = Callable[..., Result]
OPENED: dict[Path, Any] = {}
"""Pipelines by their folders."""


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty files where `evaluate` plots, for tests that do not look there."""
    for plot in ("plot_matrix", "plot_curves"):
        monkeypatch.setattr(f"mnemon.report.library_page.{plot}", lambda path, *_: write_text(path, ""))


@pytest.fixture
def opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder's weights are read once in full precision; every command has a base of its own on them."""
    read = loading.open_folder

    def open_once(folder: Path, family: type[Base], dtype: torch.dtype, variant: str = "") -> tuple[Any, str]:
        if dtype != torch.float32 or variant:  # these may be quantized
            return read(folder, family, dtype, variant)
        if folder not in OPENED:
            OPENED[folder] = read(folder, family, dtype)
        return OPENED[folder]

    monkeypatch.setattr(loading, "open_folder", open_once)


@pytest.fixture
def mnemon(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    quick_scores: None,
    opened_once: None,
) -> Command:
    """Run the command with these arguments, in an empty folder and a terminal 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("mnemon.cli._keep_quiet", lambda: None)  # pytest's own filters stay

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["mnemon", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Result(int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `sip` (a mug) and `tom` (a cat) of three photos each."""
    folder = tmp_path_factory.mktemp("photos")
    for name, seed, class_noun in (("sip", 201, "mug"), ("tom", 202, "cat")):
        thing_concept(name, seed, class_noun).write(folder / name, 3, seed=1)
    return folder


@pytest.fixture
def teach(mnemon: Command, photos: Path, world_folder: Path) -> Command:
    """`mnemon learn` of the folder `sip` in two steps, on the stand-in base, unless told otherwise."""

    def learn(*arguments: object, source: object = "sip", base: object = world_folder) -> Result:
        small = ("--set", "rank=2", "--steps", 2, "--batch", 2)
        return mnemon("learn", photos / str(source), "--base", base, *small, *arguments)

    return learn


@pytest.fixture(scope="session")
def taught_once(tmp_path_factory: pytest.TempPathFactory, photos: Path, world_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("taught") / "lib"
    training, score = TrainingSettings(steps=1, batch_size=1), EvalSettings(num_images=2, num_inference_steps=1)
    for name, class_noun in (("sip", "mug"), ("tom", "cat")):
        concept = concept_from_folder(photos / name, class_noun=class_noun)
        api.learn(path, concept, base=str(world_folder), method=Lora(rank=2), training=training, score=score)
    return path


@pytest.fixture
def taught(taught_once: Path, mnemon: Command) -> Path:
    """The library `lib` in the current folder: a mug <sip>, then a cat <tom>, both scored."""
    shutil.copytree(taught_once, "lib")
    return Path("lib")
