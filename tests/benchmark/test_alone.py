"""Every concept also alone: as an own training on the bare base, no more often than is needed, and gone on with."""

import json
from typing import Any

import pytest

from mnemon.api.opening import base_named, encoders_of
from mnemon.benchmark import Job, SerialExecutor, open_sequence, run_bench, run_job, runner
from mnemon.data import photos_tensor
from mnemon.evaluation import evaluate, reference_features
from mnemon.evaluation.prompts import concept_prompts, prompt_set
from mnemon.evaluation.run_folder import RunFolder
from mnemon.sampling import Composed
from mnemon.training import TrainingSettings, make_tasks, train
from tests.benchmark.conftest import SMALL, Planned

FAST = {method: {**SMALL, "token_lr": 0.5} for method in ("stamina", "single", "joint", "fl2t", "lora")}
"""Two steps that change images, so that a wrong training shows."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained: "cat ink" for two in the same steps."""
    names: list[str] = []

    def noted(base: Any, method: Any, tasks: Any, *arguments: Any, **options: Any) -> Any:
        names.append(" ".join(task.name for task in tasks))
        return train(base, method, tasks, *arguments, **options)

    monkeypatch.setattr(runner, "train", noted)
    return names


def alone(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.folder / "alone.json").read_text())
    return found


def own(job: Job, name: str) -> float:
    """The identity alignment after a training of this concept on the bare base, step by step as a person would."""
    (one,) = (one for one in open_sequence(job.sequence).concepts if one.name == name)
    base, method, photos = base_named(job.base), job.made_method(), one.photos()
    encoders = encoders_of(base)
    settings = TrainingSettings(seed=job.seed)
    learned = train(base, method, make_tasks(base, method, [photos.trained], seed=job.seed), settings=settings)
    references = {name: reference_features(encoders, photos_tensor(photos.references, base.resolution))}
    called, prompts = method.prompt_name(name, one.class_noun), prompt_set(encoders.prompts)
    asked = {name: concept_prompts(called, one.class_noun, prompts, job.eval_settings.num_images, kind=one.kind)}
    with Composed(base, method, learned) as composed:
        row = evaluate(composed, references, encoders, job.eval_settings, prompts=asked, control=False)
    return float(row.concepts[name]["identity_alignment"])


@pytest.mark.parametrize("method", ["stamina", "single", "joint", "fl2t"])
def test_alone_is_as_an_own_training_on_the_bare_base(planned: Planned, method: str) -> None:
    (job,) = planned([method], protocol="level", settings={method: FAST[method]})
    assert run_bench([job], SerialExecutor()).failed == {}
    found = alone(job)
    assert list(found) == ["cat", "ink", "mug"]
    for name in ("cat", "mug"):
        assert found[name]["identity_alignment"] == pytest.approx(own(job, name), abs=1e-4)
    assert {"image_alignment", "text_alignment"} <= found["mug"].keys()
    figures = json.loads((job.out / "summary.json").read_text())["methods"][method]
    mean = sum(scores["identity_alignment"] for scores in found.values()) / 3
    assert figures["alone_identity_alignment"]["mean"] == pytest.approx(mean)
    kept = figures["identity_alignment"]["mean"] / mean
    assert figures["identity_of_alone"]["mean"] == pytest.approx(kept)


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
    planned: Planned, trained: list[str], method: str, again: list[str]
) -> None:
    settings = {method: FAST[method]}
    run_bench(planned([method], settings=settings, orders=2), SerialExecutor())
    assert not any((job.folder / "alone.json").exists() for job in planned([method], settings=settings, orders=2))
    trained.clear()
    jobs = planned([method], settings=settings, orders=2, alone=True)
    ended = run_bench(jobs, SerialExecutor())
    assert (ended.before, ended.failed) == (0, {}) and trained == again  # for both orders, and nothing else
    assert {name: scores["identity_alignment"] for name, scores in alone(jobs[0]).items()} == {
        name: pytest.approx(scores["identity_alignment"], abs=1e-4) for name, scores in alone(jobs[1]).items()
    }
    assert run_bench(jobs, SerialExecutor()).before == 2


def test_a_job_stopped_while_concepts_are_alone_goes_on_there(planned: Planned, trained: list[str]) -> None:
    settings: dict[str, Any] = {"settings": {"lora": FAST["lora"]}, "alone": True}
    (whole,), (killed,) = planned(["lora"], "whole", **settings), planned(["lora"], "killed", **settings)
    run_job(whole)
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
    assert not list((killed.folder / "training").glob("*.safetensors"))
