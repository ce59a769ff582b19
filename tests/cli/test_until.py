from pathlib import Path

import pytest
from PIL import Image, ImageOps

from mnemon.library import Library
from tests.cli.conftest import Command

GOAL = ("--noun", "mug", "--references", "others", "--steps", 6, "--check-every", 2, "--json")


@pytest.fixture(autouse=True)
def others(mnemon: Command, photos: Path) -> None:
    """Photos without captions, in the current folder: the mirror images of those that are trained on."""
    Path("others").mkdir()
    for file in (photos / "sip").glob("*.png"):
        ImageOps.mirror(Image.open(file)).save(Path("others") / file.name)


@pytest.fixture(autouse=True)
def short_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemon.training.early_stopping.STEPS", 1)


def test_training_stops_at_the_goal_and_says_what_it_took(teach: Command) -> None:
    value = teach(*GOAL, "--until", "identity:0.001").json
    assert (value["until"]["steps"], value["until"]["of"], value["until"]["checks"]) == (2, 6, 1)
    assert value["until"]["share"] >= 0.001 and value["until"]["seconds"] > 0
    kept = Library.open("mnemon-library").history()[0].settings["until"]
    assert kept == {key: one for key, one in value["until"].items() if key != "seconds"}


def test_a_goal_that_is_not_reached_costs_its_checks(teach: Command) -> None:
    shown = teach(*GOAL[:-1], "--until", "identity:50").out
    assert "6 of 6 steps, goal not reached; 2 checks took" in shown


def test_a_goal_needs_references_and_a_share(teach: Command) -> None:
    assert "--references" in teach("--until", "identity:0.9").err
    for wrong in ("identity", "identity:-1", "image:0.9", "identity:nan"):
        assert "identity:0.95" in teach(*GOAL, "--until", wrong).err
    for file in sorted(Path("others").iterdir())[1:]:
        file.unlink()
    assert "at least two photos" in teach(*GOAL, "--until", "identity:0.9").err
    assert not Path("mnemon-library").exists()
