from pathlib import Path

import pytest

from mnemon.library import Library
from mnemon.training.resume import Checkpoints
from tests.cli.conftest import Command
from tests.cli.victim import AFTER, killed_while


def learn(photos: Path, base: Path, library: str) -> list[object]:
    small = ["--set", "rank=2", "--steps", 4, "--batch", 2, "--noun", "mug"]
    return ["learn", photos / "sip", "--base", base, "--library", library, *small]


def weights(library: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted(Path(library, "concepts").rglob("*.safetensors"))]


def test_the_same_command_goes_on_to_the_same_weights(
    mnemon: Command, photos: Path, world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mnemon(*learn(photos, world_folder, "whole")).code == 0
    assert killed_while("training", learn(photos, world_folder, "killed"), tmp_path) == -9
    assert Library.open("killed").names() == []
    restore, steps = Checkpoints.restore, []

    def watched(self: Checkpoints, of: int) -> int:
        steps.append(restore(self, of))
        return steps[-1]

    monkeypatch.setattr(Checkpoints, "restore", watched)
    assert mnemon(*learn(photos, world_folder, "killed")).code == 0
    assert steps == [AFTER]
    assert weights("killed") == weights("whole")
    assert not list(Path("killed/training").iterdir())


@pytest.mark.usefixtures("quick_plots")
def test_a_concept_that_was_not_scored_is_kept_and_measured_later(
    mnemon: Command, photos: Path, world_folder: Path, tmp_path: Path
) -> None:
    assert killed_while("scoring", learn(photos, world_folder, "lib"), tmp_path) == -9
    assert Library.open("lib").names() == ["sip"] and Library.open("lib").rows() == {}
    assert "already has a concept" in mnemon(*learn(photos, world_folder, "lib")).err
    rows = mnemon("evaluate", "--library", "lib", "--json").json["rows"]
    assert rows["1"]["concepts"]["sip"]["identity_alignment"] is not None
