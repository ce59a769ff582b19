"""Checkpoints: which run goes on from which, and what cannot be written."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from mnemon.errors import MnemonError
from mnemon.files import replacing
from mnemon.methods.lora import Lora
from mnemon.models import Base
from mnemon.training import ConceptTask, Examples, StoppingCriterion, TrainingSettings, discard_checkpoint, train
from tests.contract.table import assert_same_learned
from tests.tiny import tiny_sd_base
from tests.training.runs import LORA, STAMINA, latents, learn, task


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


class Killed(Exception):
    pass


def dying_at(step: int) -> Callable[..., None]:
    def on_step(done: int, *_: object) -> None:
        if done == step:
            raise Killed

    return on_step


@pytest.mark.parametrize("method", [LORA, STAMINA], ids=["lora", "stamina"])
def test_a_run_goes_on_from_its_snapshot_bit_for_bit(base: Base, tmp_path: Path, method) -> None:
    settings = {"checkpoint_seconds": 0, "lr_scheduler": "cosine", "lr_warmup_steps": 2}
    with pytest.raises(Killed):
        learn(base, method, settings, folder=tmp_path, on_step=dying_at(4))
    seen: list[int] = []
    resumed = learn(base, method, settings, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen == [5, 6]
    assert_same_learned(resumed, learn(base, method, settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adafactor", "caption_dropout": 0.5},
        {"optimizer": "adamw", "ema_decay": 0.9, "max_grad_norm": 0.1, "lr_scheduler": "linear"},
        {"optimizer": "prodigy", "ema_decay": 0.9},
    ],
    ids=["adafactor", "ema", "prodigy"],
)
def test_a_run_with_other_steps_goes_on_bit_for_bit(base: Base, tmp_path: Path, settings: dict[str, object]) -> None:
    if settings["optimizer"] == "prodigy":
        pytest.importorskip("prodigyopt")
    settings = {**settings, "checkpoint_seconds": 0}
    with pytest.raises(Killed):
        learn(base, STAMINA, settings, folder=tmp_path, on_step=dying_at(3))
    seen: list[int] = []
    resumed = learn(base, STAMINA, settings, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]
    whole = learn(base, STAMINA, settings)
    assert_same_learned(resumed, whole)
    plain = learn(base, STAMINA, {"checkpoint_seconds": 0})
    with pytest.raises(AssertionError):
        assert_same_learned(whole, plain)


def test_a_finished_run_is_found_finished_until_its_snapshot_is_discarded(base: Base, tmp_path: Path) -> None:
    seen: list[int] = []
    first = learn(base, folder=tmp_path)
    again = learn(base, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen == []
    assert_same_learned(first, again)
    (tmp_path / "training.safetensors.part").write_bytes(b"cut off")
    discard_checkpoint(tmp_path)
    discard_checkpoint(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "method", "what"),
    [
        ({"seed": 1}, LORA, "seed 0 then, 1 now"),
        ({"steps": 9, "lr_scheduler": "cosine"}, LORA, "lr_scheduler constant then, cosine now"),
        ({}, Lora(rank=3, steps=6, batch_size=4), "lora.rank 2 then, 3 now"),
        (
            {},
            Lora(rank=2, steps=6, batch_size=2, token_lr=0.1),
            "batch_size 4 then, 2 now; lora.token_lr 0.005 then, 0.1 now",
        ),
        ({}, STAMINA, "method lora then, stamina now"),
    ],
)
def test_a_snapshot_of_another_run_is_not_gone_on_from(
    base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict, method, what: str
) -> None:
    learn(base, folder=tmp_path)
    seen: list[int] = []
    with caplog.at_level(logging.WARNING, "mnemon"):
        learned = learn(base, method, settings, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen[0] == 1 and f"is of another run: {what}. The training starts anew." in caplog.text
    assert_same_learned(learned, learn(base, method, settings))
    caplog.clear()
    seen.clear()
    learn(base, folder=tmp_path, on_step=lambda step, *_: seen.append(step))  # the first run is still there
    assert not seen and not caplog.text


def test_other_photos_or_earlier_concepts_start_anew(
    base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TrainingSettings(steps=1, batch_size=1)
    for earlier, seed in (([], 0), ([], 1), ([learn(base)], 1)):
        kiki = ConceptTask("kiki", "dog", Examples(latents(base, 1, seed), ["<kiki> dog"]))
        train(base, LORA, [kiki], earlier, settings, tmp_path)
    assert re.search(r"another run: images of kiki 1 \(\w{12}\) then, 1 \(\w{12}\) now\. The", caplog.text)
    assert re.search(r"another run: earlier concept rex none then, \w{12} now\. The", caplog.text)


def test_a_caption_that_changed_is_no_other_photo(base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for prompt in ("<kiki> dog", "a <kiki> dog"):
        kiki = ConceptTask("kiki", "dog", Examples(latents(base, 1), [prompt]))
        train(base, LORA, [kiki], settings=TrainingSettings(steps=1, batch_size=1), folder=tmp_path)
    assert "another run: prompts of kiki" in caplog.text and "images" not in caplog.text


@pytest.mark.parametrize(("before", "after"), [(6, 9), (9, 6), (6, None)])
def test_a_run_of_constant_rates_goes_on_to_another_number_of_steps(
    base: Base, tmp_path: Path, before: int, after: int | None
) -> None:
    with pytest.raises(Killed):
        learn(base, settings={"checkpoint_seconds": 0, "steps": before}, folder=tmp_path, on_step=dying_at(4))
    seen: list[int] = []
    resumed = learn(base, settings={"steps": after}, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen == list(range(5, (after or LORA.steps) + 1))
    assert_same_learned(resumed, learn(base, settings={"steps": after}))


def test_fewer_steps_than_are_done_are_refused(base: Base, tmp_path: Path) -> None:
    learn(base, folder=tmp_path)
    with pytest.raises(MnemonError, match="has 6 steps done, and 5 are asked for: ask for 6 or more, or delete it"):
        learn(base, settings={"steps": 5}, folder=tmp_path)
    assert (tmp_path / "training.safetensors").exists()


def test_a_method_that_follows_the_run_starts_anew_with_other_steps(
    base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learn(base, STAMINA, folder=tmp_path)
    learn(base, STAMINA, {"steps": 7}, folder=tmp_path)
    assert f"another run: steps {STAMINA.steps} then, 7 now. The" in caplog.text


def full_disk(monkeypatch: pytest.MonkeyPatch, *, writes: bool) -> None:
    """What safetensors raises where there is no room; it is no OSError."""

    def save(tensors: object, path: str, metadata: object) -> None:
        if writes:
            Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("mnemon.tensor_files.save_file", save)


@pytest.mark.parametrize("writes", [True, False])
def test_a_checkpoint_that_cannot_be_written_costs_a_warning(
    base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, writes=writes)
        learned = learn(base, settings={"checkpoint_seconds": 0}, folder=tmp_path)
    (said,) = caplog.messages
    assert "training.safetensors' could not be written" in said and "No space left on device" in said
    assert "could not be resumed from step 1" in said and not list(tmp_path.iterdir())
    assert_same_learned(learned, learn(base))


def test_an_older_checkpoint_stays_when_a_new_one_cannot_be_written(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(step: int, *_: object) -> None:
        if step == 3:
            full_disk(monkeypatch, writes=True)
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        learn(base, settings={"checkpoint_seconds": 0}, folder=tmp_path, on_step=fill)
    monkeypatch.undo()
    seen: list[int] = []
    learn(base, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]


def test_a_preview_that_cannot_be_written_costs_a_warning(
    base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def look(step: int) -> None:
        with replacing(tmp_path / "preview.png"):
            raise OSError(28, "No space left on device")

    train(base, LORA, [task(base)], settings=TrainingSettings(steps=2, preview_every=1), on_preview=look)
    assert len(caplog.messages) == 2 and "(No space left on device)" in caplog.text


def test_losses_that_cannot_be_written_cost_a_warning(
    base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("accelerate.Accelerator.log", fail)
    learn(base, settings={"tensorboard": True}, folder=tmp_path)
    assert len(caplog.messages) == 1 and "goes on without TensorBoard" in caplog.text


def test_settings_that_do_not_matter_go_on(base: Base, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        learn(base, settings={"checkpoint_seconds": 0}, folder=tmp_path, on_step=dying_at(4))
    seen: list[int] = []
    learn(base, settings={"preview_every": 5}, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen == [5, 6]


def test_a_damaged_snapshot_is_named(base: Base, tmp_path: Path) -> None:
    learn(base, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MnemonError, match=rf"{path.name} is damaged \(.*header.*\): delete it"):
        learn(base, folder=tmp_path)


def goal(asked: list[int], stop: int, name: str = "goal") -> StoppingCriterion:
    def reached(done: int) -> bool:
        asked.append(done)
        return done >= stop

    return StoppingCriterion(reached, every=2, name=name)


@pytest.mark.parametrize("method", [LORA, STAMINA], ids=["lora", "stamina"])
@pytest.mark.parametrize("killed", [3, 4])
def test_a_run_with_a_goal_stops_early_and_at_the_same_step_after_a_kill(
    base: Base, tmp_path: Path, method, killed: int
) -> None:
    tasks, settings = [task(base)], TrainingSettings(checkpoint_seconds=0)
    asked: list[int] = []
    whole = train(base, method, tasks, settings=settings, stopping=goal(asked, 4))[0]
    assert asked == [2, 4]
    folder = tmp_path / "training"
    with pytest.raises(Killed):
        train(base, method, tasks, settings=settings, folder=folder, on_step=dying_at(killed), stopping=goal([], 4))
    for _ in range(2):  # a finished run is found finished
        asked.clear()
        resumed = train(base, method, tasks, settings=settings, folder=folder, stopping=goal(asked, 4))[0]
        assert asked == [4]
        assert_same_learned(resumed, whole)
    seen: list[int] = []
    further = train(base, method, tasks, settings=settings, folder=folder, on_step=lambda step, *_: seen.append(step))[
        0
    ]
    assert seen == [5, 6]
    assert_same_learned(further, learn(base, method, {"checkpoint_seconds": 0}))
    train(base, method, tasks, settings=settings, folder=folder, stopping=goal(asked, 4, "another goal"))
    assert asked[-2:] == [2, 4]
