import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.web.training import Request, Training, Trainings
from mnemon.web.uploads import keep, look_at
from mnemon.web.workspace import Workspace


def begin(workspace: Workspace, photos: list[Path], steps: int = 3, name: str = "rex") -> tuple[Trainings, Training]:
    _, held_out = keep(workspace.photos, name, look_at(photos, 64), {})
    trainings = Trainings(workspace)
    return trainings, trainings.start(Request(name, "dog", steps, scored=False, held_out=held_out is not None))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_training_runs_by_itself_and_says_where_it_is(workspace: Workspace, photos: list[Path]) -> None:
    trainings, training = begin(workspace, photos)
    training.join(60)
    progress = training.progress
    assert progress.phase == "done" and not progress.running, progress.message
    assert [step for step, _ in progress.losses] == [1, 2, 3]
    assert progress.seconds_left == 0 and "<rex>" in progress.message
    assert Library.open(workspace.library).concepts()["rex"].class_noun == "dog"
    assert len(training.previews()) == 12 and trainings.unfinished() == []
    assert len(Library.open(workspace.library).concepts()["rex"].photos) == 4  # the fifth was held out


def test_a_stopped_training_goes_on_where_it_was_even_after_the_server_died(
    workspace: Workspace, photos: list[Path]
) -> None:
    trainings, training = begin(workspace, photos, steps=400)
    wait_for(lambda: training.progress.step >= 2)
    training.stop()
    training.join(60)
    stopped = training.progress
    assert stopped.phase == "stopped" and 2 <= stopped.step < 400, stopped.message
    assert not Library.open(workspace.library).names()
    anew = Trainings(Workspace(workspace.library, workspace.base_name, "lora"))  # as a new server finds it
    (request,) = anew.unfinished()
    assert request == training.request
    resumed = anew.start(request)
    wait_for(lambda: resumed.progress.step > 0)
    resumed.stop()
    resumed.join(60)
    assert resumed.progress.losses[0][0] == stopped.step + 1


def test_one_training_at_a_time(workspace: Workspace, photos: list[Path]) -> None:
    trainings, training = begin(workspace, photos, steps=400)
    try:
        wait_for(lambda: bool(workspace.doing))
        with pytest.raises(MnemonError, match="busy learning <rex>"):
            trainings.start(Request("tom", "cat", 3))
        with pytest.raises(MnemonError, match="busy learning <rex>"), workspace.model("drawing"):
            pass
    finally:
        training.stop()
        training.join(60)


def test_another_process_that_writes_is_named(known: Workspace, photos: list[Path], tmp_path: Path) -> None:
    with Library.open(known.library).lock():
        _, training = begin(known, photos)
        training.join(60)
    assert training.progress.phase == "failed" and "is being written by process" in training.progress.message
    assert Trainings(known).unfinished() == [training.request]  # nothing is lost


def test_a_taken_name_is_refused_before_training(known: Workspace) -> None:
    with pytest.raises(MnemonError, match="already has a concept 'sip'"):
        Trainings(known).start(Request("sip"))


@pytest.mark.parametrize("steps", [0, -1, 10**9])
def test_steps_that_cannot_be_taken_are_refused(steps: int) -> None:
    with pytest.raises(MnemonError, match="choose 1 to"):
        Request("rex", steps=steps)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "rex", "steps": 0}', '{"other": 1}', "\x00"])
def test_a_damaged_record_is_in_nobodys_way(workspace: Workspace, text: str) -> None:
    file = workspace.photos / "rex" / "unfinished.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert Trainings(workspace).unfinished() == []


def test_a_scored_training_ends_with_its_scores_in_words(
    workspace: Workspace, photos: list[Path], quick_scores: None
) -> None:
    _, held_out = keep(workspace.photos, "rex", look_at(photos, 64), {})
    training = Trainings(workspace).start(Request("rex", "dog", 1, held_out=held_out is not None))
    training.join(100)
    assert training.progress.phase == "done", training.progress.message
    assert "rex reached" in training.progress.message or "rex is weak" in training.progress.message
