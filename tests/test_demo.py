import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mnemon.cli import demo_run as demo
from mnemon.library import Library
from mnemon.models import Base, load_base
from mnemon.training import TrainingSettings

TRAINING = TrainingSettings(steps=2, batch_size=2)
FIVE = demo.CONCEPTS
KEYS = {"learning_identity", "final_identity", "retention", "seconds"}


@pytest.fixture(scope="module")
def base(world_folder: Path) -> Base:
    return load_base(str(world_folder))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, quick_scores: None) -> None:
    """Two concepts, few photos."""
    monkeypatch.setattr(demo, "CONCEPTS", demo.CONCEPTS[:2])
    monkeypatch.setattr(demo, "PHOTOS", 2)
    monkeypatch.setattr(demo, "REFERENCES", 3)


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    methods = {name: {**values, "seconds": None} for name, values in summary["methods"].items()}
    return {**summary, "methods": methods}


class Stops:
    """Stops the demo once at every place it comes to: before and in training, when scored, after each row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: set[object] = set()
        write_row = Library.write_row

        def stopped_write_row(library: Library, state: int, row: dict[str, Any]) -> None:
            if library.path.name == "stamina":  # so that there are rows of the other
                self.at("scored", state)
            write_row(library, state, row)

        monkeypatch.setattr(Library, "write_row", stopped_write_row)
        monkeypatch.setattr(demo, "write_report", self.before("page", demo.write_report))
        self.events = demo.DemoEvents(
            on_start=lambda method, concept: self.at("start", method, concept),
            on_step=lambda done, total, logs: self.at("step", len(self.places) // 6, done),
            on_row=lambda library, row: self.at("row", library.path.name, library.revision),
        )

    def before(self, place: str, function: Any) -> Any:
        def stopped(*arguments: Any) -> None:
            self.at(place)
            function(*arguments)

        return stopped

    def at(self, *place: object) -> None:
        if place not in self.places:
            self.places.add(place)
            raise KeyboardInterrupt


def test_a_demo_stopped_everywhere_ends_as_one_that_was_not(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = demo.run_demo(tmp_path / "whole", base, training=TRAINING)
    stops = Stops(monkeypatch)
    for _ in range(100):
        try:
            summary = demo.run_demo(tmp_path / "demo", base, stops.events, TRAINING)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "demo" / "summary.json").exists()
    assert {place[0] for place in stops.places} == {"start", "step", "scored", "row", "page"}  # type: ignore[index]
    assert without_times(summary) == without_times(whole)
    assert json.loads((tmp_path / "demo" / "summary.json").read_text()) == summary
    assert summary["methods"].keys() == {"stamina", "lora"}
    assert all(values.keys() == KEYS and values["seconds"] >= 0 for values in summary["methods"].values())
    page = (tmp_path / "demo" / "report.html").read_text()
    assert all(f"&lt;{concept.name}&gt;" in page or concept.name in page for concept in demo.CONCEPTS)
    assert page.count("<img") >= len(demo.METHODS) * 3  # two concepts: one image, then two


def test_the_concepts_are_five_and_two_share_a_noun() -> None:
    nouns = [concept.class_noun for concept in FIVE]
    assert len(nouns) == 5 and len(set(nouns)) == 4


def test_the_command_prints_a_table_or_the_summary(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mnemon.cli.demo import demo as command

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("mnemon.models.load_base", lambda name: base)
    monkeypatch.setattr(demo, "run_demo", partial(demo.run_demo, training=TRAINING))
    command(tmp_path / "demo", False)
    printed = capsys.readouterr()
    assert "stamina" in printed.out and "lora" in printed.out and str(tmp_path / "demo" / "report.html") in printed.out
    assert "learns <sip>" in printed.err
    command(tmp_path / "demo", True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["methods"].keys() == {"stamina", "lora"}
