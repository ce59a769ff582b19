"""Every concept also alone: as an own training on the bare base, no more often than is needed, and gone on with."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from mnemon.api.opening import base_named
from mnemon.benchmark import Job, SerialExecutor, open_sequence, run_bench, run_job, runner
from mnemon.evaluation.run_folder import RunFolder
from mnemon.library import Library
from mnemon.methods import TrainedConcept
from mnemon.sampling import Composed
from mnemon.training import TrainingSettings, make_tasks, train
from tests.benchmark.conftest import Planned


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained: "cat ink" for two in the same steps."""
    names: list[str] = []

    def noted(base: Any, method: Any, tasks: Any, *arguments: Any, **options: Any) -> Any:
        names.append(" ".join(task.name for task in tasks))
        return train(base, method, tasks, *arguments, **options)

    monkeypatch.setattr(runner, "train", noted)
    return names


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, TrainedConcept]:
    """What was last scored with no other concept in the model, by name."""
    concepts: dict[str, TrainedConcept] = {}

    def noted(base: Any, method: Any, learned: Any) -> Any:
        concepts.update({learned[0].name: learned[0]} if len(learned) == 1 else {})
        return Composed(base, method, learned)

    monkeypatch.setattr(runner, "Composed", noted)
    return concepts


def alone(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.folder / "alone.json").read_text())
    return found


def tensors(concept: TrainedConcept) -> dict[str, Tensor]:
    changes = {target: delta.matrix().detach() for target, delta in concept.deltas.items()}
    return changes | {name: vectors.detach() for name, vectors in concept.tokens.items()}


def own(job: Job, name: str) -> TrainedConcept:
    """A training of this concept on the bare base, as a person would do it."""
    (photos,) = (one.photos().trained for one in open_sequence(job.sequence).concepts if one.name == name)
    base, method, settings = base_named(job.base), job.made_method(), TrainingSettings(seed=job.seed)
    return train(base, method, make_tasks(base, method, [photos], seed=job.seed), settings=settings)[0]


@pytest.mark.parametrize("method", ["stamina", "c-lora", "single", "joint", "fl2t"])
def test_alone_is_as_an_own_training_on_the_bare_base(
    planned: Planned, scored: dict[str, TrainedConcept], method: str
) -> None:
    (job,) = planned([method], protocol="level")
    assert run_bench([job], SerialExecutor()).failed == {}
    kept = {one.name: one for one in Library.open(job.folder / "library").learned()}
    for name in ("cat", "mug"):  # what is trained apart from the others anyway is as it was trained
        expected = kept[name] if method == "single" else own(job, name)
        torch.testing.assert_close(tensors(scored[name]), tensors(expected), atol=0, rtol=0)
    found = alone(job)
    assert list(found) == ["cat", "ink", "mug"] and {"image_alignment", "text_alignment"} <= found["mug"].keys()
    figures = json.loads((job.out / "summary.json").read_text())["methods"][method]
    mean = sum(scores["identity_alignment"] for scores in found.values()) / 3
    assert figures["alone_identity_alignment"]["mean"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("method", "again"),
    [
        ("stamina", ["ink", "mug"]),  # the first one was alone
        ("single", []),  # they never meet
        ("joint", ["cat", "ink", "mug"]),
        ("fl2t", ["cat", "ink", "mug"]),  # which relates those of the same steps
    ],
)
def test_only_what_is_not_known_yet_is_trained_again(
    planned: Planned,
    trained: list[str],
    scored: dict[str, TrainedConcept],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    again: list[str],
) -> None:
    monkeypatch.setattr(runner, "TOGETHER", 2)  # so that other concepts learn together in another order
    run_bench(planned([method], orders=2), SerialExecutor())
    assert not any((job.folder / "alone.json").exists() for job in planned([method], orders=2))
    trained.clear()
    jobs = planned([method], orders=2, alone=True)
    ended = run_bench(jobs, SerialExecutor())
    assert (ended.before, ended.failed) == (0, {}) and trained == again  # for both orders, and nothing else
    assert alone(jobs[0]).keys() == alone(jobs[1]).keys()
    if method == "single":  # each order as it was trained there
        kept = {one.name: one for one in Library.open(jobs[1].folder / "library").learned()}
        assert all(
            torch.equal(scored[name].tokens["text_encoder"], kept[name].tokens["text_encoder"])
            for name in list(kept)[1:]
        )
    assert run_bench(jobs, SerialExecutor()).before == 2


def test_another_seed_is_another_training(planned: Planned, trained: list[str]) -> None:
    run_bench(planned(["lora"], seeds=2, alone=True), SerialExecutor())
    assert trained == ["cat", "ink", "mug", "ink", "mug"] * 2


def test_a_job_stopped_while_concepts_are_alone_goes_on_there(
    planned: Planned, trained: list[str], scored: dict[str, TrainedConcept]
) -> None:
    (whole,), (killed,) = planned(["lora"], "whole", alone=True), planned(["lora"], "killed", alone=True)
    run_job(whole)
    unhurt = {name: tensors(concept) for name, concept in scored.items()}
    trained.clear()
    stopped: list[str] = []

    def stop(progress: Any) -> None:
        if progress.doing.endswith("alone") and progress.doing not in stopped:
            stopped.append(progress.doing)
            raise KeyboardInterrupt

    while True:
        try:
            run_job(killed, stop)
            break
        except KeyboardInterrupt:
            folder = RunFolder(killed.folder)
            assert folder.finished(3) and not folder.finished(3, alone=True)
    doing = ["learning <ink> alone", "scoring <ink> alone", "learning <mug> alone", "scoring <mug> alone"]
    assert stopped == doing and alone(killed) == alone(whole)
    assert trained == ["cat", "ink", "mug", "ink", "ink", "mug", "mug"]  # the second time from its last checkpoint
    torch.testing.assert_close({name: tensors(concept) for name, concept in scored.items()}, unhurt, atol=0, rtol=0)
    assert not list((killed.folder / "training").glob("*.safetensors"))
