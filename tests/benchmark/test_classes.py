"""Comparisons of classifiers: sequences, settings, jobs, and what is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mnemon.benchmark import SerialExecutor
from mnemon.benchmark.classes import (
    PROTOCOLS,
    ClassJob,
    classifier_by,
    open_classes,
    plan_classes,
    run_class_bench,
    runner,
    sequences,
)
from mnemon.classification import CLASSIFIERS
from mnemon.cli import app
from mnemon.errors import MnemonError
from mnemon.world.looks import Look

LIGHT = {"lora": {"epochs": 1, "rank": 2}, "coda-p": {"epochs": 1, "components": 2}, "joint": {"epochs": 1, "rank": 2}}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence of two tasks of two classes, two images of each."""
    monkeypatch.setitem(sequences.SHIPPED, "tiny", (2, 4, 9001))
    monkeypatch.setattr(sequences, "IMAGES", {"train": 2, "test": 2})
    sequences._drawn.cache_clear()


def jobs(out: Path, *methods: str, **more: Any) -> list[ClassJob]:
    settings = {name: LIGHT[name] for name in methods if name in LIGHT}
    return plan_classes(out, "tiny", methods, more.pop("orders", 1), settings=settings, **more)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "tasks"), [("classes-10", 10), ("classes-20", 20)])
def test_reporting_sequences_have_a_hundred_classes_in_equal_tasks(name: str, tasks: int) -> None:
    sequence = open_classes(name)
    assert (len(set(sequence.classes)), sequence.count) == (100, tasks)
    for order in (0, 1):
        found = sequence.tasks(order)
        assert [len(task.classes) for task in found] == [100 // tasks] * tasks
        assert sorted(label for task in found for label in task.classes) == sorted(sequence.classes)
    assert sequence.tasks(0)[0].classes != sequence.tasks(1)[0].classes


def test_the_last_forty_classes_are_near_neighbours_of_the_first() -> None:
    looks = list(sequences._looks(100, 1001).values())

    def apart(one: Look, other: Look) -> float:
        return sum(abs(a - b) for a, b in zip(one.body + one.shape, other.body + other.shape, strict=True))

    for place, look in enumerate(looks[60:]):
        assert look.noun == looks[place].noun and look.pattern == looks[place].pattern
        assert apart(look, looks[place]) > 0
    near = sum(apart(look, looks[place]) for place, look in enumerate(looks[60:])) / 40
    far = sum(apart(look, looks[place + 12]) for place, look in enumerate(looks[:40])) / 40  # the same noun
    assert near < far / 2


def test_images_of_training_tests_and_development_are_apart() -> None:
    train, test = open_classes("tiny").images()
    other = sequences._drawn(4, 5001)
    groups = [{one.sha256 for one in group} for group in (train, test, *other)]
    assert [len(group) for group in groups] == [8] * 4 and len(set.union(*groups)) == 32
    seeds = [set(range(seed, seed + count)) for name, (_, count, seed) in sequences.SHIPPED.items() if name != "tiny"]
    assert len(set.union(*seeds)) == 140  # the reporting classes, which two share, and the development ones


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_protocol_has_settings_for_every_method(protocol: str, name: str) -> None:
    method, common = classifier_by(protocol, name), PROTOCOLS[protocol].common
    own = PROTOCOLS[protocol].own.get(name, {})
    assert all(getattr(method, key) == value for key, value in own.items())
    assert method.epochs == own.get("epochs", common["epochs"])


def test_a_run_gives_matrices_and_a_summary_and_is_not_repeated(tmp_path: Path) -> None:
    planned = jobs(tmp_path, "nearest-mean", "lora", "coda-p", "joint")
    ended = run_class_bench(planned, SerialExecutor())
    assert ended.failed == {}
    methods = read(tmp_path / "summary.json")["methods"]
    assert methods.keys() == {"nearest-mean", "lora", "coda-p", "joint"}
    for name, figures in methods.items():
        assert 0 <= figures["a_n"]["mean"] <= 1 and figures["a_n"]["runs"] == 1
        assert figures["f_n"]["runs"] == (0 if name == "joint" else 1)
    assert methods["nearest-mean"]["parameters"]["mean"] == 0 < methods["lora"]["parameters"]["mean"]
    assert methods["coda-p"]["query_cache_bytes"]["mean"] == 4 * 128 * 4  # images, width, bytes of a number
    runs = {one["method"]: one["rows"] for one in read(tmp_path / "matrices.json")["runs"]}
    assert {t: list(row) for t, row in runs["lora"].items()} == {"1": ["task-1"], "2": ["task-1", "task-2"]}
    assert list(runs["joint"]) == ["2"] and all(cell["images"] == 4 for cell in runs["joint"]["2"].values())
    page = ended.page.read_text(encoding="utf-8")
    assert "Every score matrix" in page and "A_N" in page
    assert "| nearest-mean (1 run)" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert run_class_bench(planned, SerialExecutor()).before == 4


def test_a_job_that_failed_goes_on_after_the_task_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []

    def failing(library: Path, task: Any, **more: Any) -> int:
        learned.append(task.name)
        if len(learned) == 2:
            raise MnemonError("The disk is full.")
        return original(library, task, **more)

    original = runner.learn_classes
    monkeypatch.setattr(runner, "learn_classes", failing)
    (job,) = jobs(tmp_path, "nearest-mean")
    assert run_class_bench([job], SerialExecutor()).failed == {job.title: "learning task-2: The disk is full."}
    assert run_class_bench([job], SerialExecutor()).failed == {}
    assert learned == ["task-1", "task-2", "task-2"]


def test_another_way_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run_class_bench(jobs(tmp_path, "nearest-mean"), SerialExecutor())
    with pytest.raises(MnemonError, match="'sequence'"):
        plan_classes(tmp_path, "classes-10", ["lora"], 1)
    with pytest.raises(MnemonError, match="normalization"):
        plan_classes(tmp_path, "tiny", ["nearest-mean"], 1, settings={"nearest-mean": {"normalization": "none"}})


def test_a_folder_with_splits_is_a_sequence(tmp_path: Path) -> None:
    for split, examples in zip(("train", "test"), open_classes("tiny").images(), strict=True):
        for number, one in enumerate(examples):
            (tmp_path / "set" / split / one.label).mkdir(parents=True, exist_ok=True)
            one.image.save(tmp_path / "set" / split / one.label / f"{number}.png")
    (job,) = plan_classes(tmp_path / "out", str(tmp_path / "set"), ["nearest-mean"], 1, tasks=2)
    assert run_class_bench([job], SerialExecutor()).failed == {}
    with pytest.raises(MnemonError, match="--tasks"):
        plan_classes(tmp_path / "other", str(tmp_path / "set"), ["nearest-mean"], 1)
    with pytest.raises(MnemonError, match="4 classes cannot be split into 3"):
        plan_classes(tmp_path / "other", str(tmp_path / "set"), ["nearest-mean"], 1, tasks=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequence", "classes-11"], "no sequence 'classes-11'"),
        (["--methods", "staminer"], "no method 'staminer'"),
        (["--protocol", "paper"], "no protocol 'paper'"),
        (["--methods", "lora", "--set", "stamina.rank=8"], "not among the methods"),
        (["--methods", "lora", "--set", "lora.rang=8"], "rang"),
        (["--methods", ","], "at least one method"),
        (["--tasks", "5"], "has 10 tasks, not 5"),
    ],
)
def test_what_cannot_be_run_is_named_before_anything_is_done(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["classify", "bench", "--out", str(tmp_path / "out"), *arguments])
    assert isinstance(result.exception, MnemonError) and message in str(result.exception)
    assert not (tmp_path / "out").exists()
