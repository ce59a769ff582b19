import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon.benchmark import Job, SerialExecutor, open_sequence, plan, run_bench, run_job, runner
from mnemon.errors import MnemonError
from mnemon.evaluation import EvalSettings
from mnemon.evaluation.run_folder import RunFolder
from mnemon.library import Library
from mnemon.methods import method_from
from tests.benchmark.conftest import SMALL, Planned

pytestmark = pytest.mark.usefixtures("few_control_prompts")


def rows(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.folder / "rows.json").read_text())
    return found


def names(job: Job, state: int) -> list[str]:
    return list(rows(job)[str(state)]["concepts"])


def test_a_job_leaves_its_matrix_features_costs_and_a_library(planned: Planned) -> None:
    (job,) = planned(["lora"])
    assert run_bench([job], SerialExecutor()).failed == {}
    record = RunFolder(job.folder).record()
    assert record.finished and record.names == ("cat", "ink", "mug") and record.points == (2, 3)
    assert [names(job, state) for state in (0, 1, 2, 3)] == [[], ["cat"], ["cat", "ink"], ["cat", "ink", "mug"]]
    assert record.not_held_out == ("ink", "mug")
    cell = rows(job)["1"]["concepts"]["cat"]
    cosine = record.features["pictures/1/cat/identity"] @ record.features["references/cat/identity"].T
    assert cell["identity_alignment"] == pytest.approx(float(cosine.mean()), abs=1e-5) and cell["references"] == 2
    assert "general" not in rows(job)["1"] and set(rows(job)["2"]) == {"concepts", "general", "multi"}
    assert [one["concepts"] for one in rows(job)["3"]["multi"]] in ([["cat", "mug"]], [["mug", "cat"]])
    assert all(record.control(t) is not None for t in (0, 2, 3)) and record.control(1) is None
    assert set(record.costs["seconds"]) == set(record.costs["bytes"]) == set(record.names)
    assert all(record.costs[name] for name in ("parameters", "peak_memory_bytes", "draw_seconds_per_picture"))
    assert (2, "cat") in record.strips and (1, "ink") not in record.strips
    library = Library.open(job.folder / "library")
    assert library.names() == ["cat", "ink", "mug"] and library.references("cat")
    assert not list((job.folder / "training").glob("*.safetensors"))


class Stops:
    """Stops a job once at every place it comes to: in training, before a commit, before and after a row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: set[object] = set()
        for owner, name in ((Library, "commit"), (RunFolder, "write_row"), (runner, "discard_checkpoint")):
            monkeypatch.setattr(owner, name, self._stopped(name, getattr(owner, name)))

    def _stopped(self, name: str, function: Any) -> Any:
        def stopped(*arguments: Any, **options: Any) -> Any:
            self.at(f"before {name}", len(self.places))
            function(*arguments, **options)

        return stopped

    def at(self, *place: object) -> None:
        kind = place[0]
        if [one[0] for one in self.places].count(kind) < 2 and place not in self.places:  # type: ignore[index]
            self.places.add(place)
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["stamina", "textual-inversion"])
def test_a_job_stopped_anywhere_ends_as_one_that_was_not(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """One method that learns one concept after another, one that learns all three in the same steps."""
    (whole,), (killed,) = planned([method], "whole"), planned([method], "killed")
    run_job(whole)
    stops = Stops(monkeypatch)
    for _ in range(20):
        try:
            run_job(killed, lambda progress: stops.at(progress.doing, progress.done))
            break
        except KeyboardInterrupt:
            assert not RunFolder(killed.folder).finished(3)
    assert {"before commit", "before write_row", "before discard_checkpoint"} <= {p[0] for p in stops.places}  # type: ignore[index]
    assert rows(killed) == rows(whole)
    ours, theirs = (RunFolder(job.folder).record().features for job in (killed, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_concepts_learned_together_have_a_row_each_and_trains_jointly_the_last_only(planned: Planned) -> None:
    single, joint = planned(["single", "joint"])
    assert run_bench([single, joint], SerialExecutor()).failed == {}
    assert [names(single, state) for state in (1, 2, 3)] == [["cat"], ["cat", "ink"], ["cat", "ink", "mug"]]
    assert "a model of its own" in rows(single)["3"]["refused"]["2"] and rows(single)["3"]["multi"] == []
    assert set(rows(joint)) == {"0", "3"} and names(joint, 3) == ["cat", "ink", "mug"]
    sizes = [len(group) for _, group in runner.groups(method_from("single"), range(12))]  # type: ignore[arg-type]
    assert sizes == [5, 5, 2]


def test_a_job_that_fails_is_recorded_and_the_others_go_on(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    lora, single = planned(["lora", "single"])
    real, failing = runner.evaluate, [True]

    def evaluate(composed: Any, *arguments: Any, **options: Any) -> Any:
        if composed.learned and composed.method.name == "lora" and failing:
            raise RuntimeError("no memory left")
        return real(composed, *arguments, **options)

    monkeypatch.setattr(runner, "evaluate", evaluate)
    ended = run_bench([lora, single], SerialExecutor())
    assert ended.failed == {"lora, order 0, seed 0": "scoring after 1: RuntimeError: no memory left"}
    assert "evaluate" in json.loads((lora.folder / "failed.json").read_text())["traceback"]
    failing.clear()
    again = run_bench([lora, single], SerialExecutor())
    assert (again.before, again.failed) == (1, {}) and not (lora.folder / "failed.json").exists()


def test_orders_and_seeds_are_jobs_and_other_settings_need_another_folder(
    planned: Planned, tmp_path: Path, three: Path
) -> None:
    made = planned(["lora", "ewc"], orders=2, seeds=2)
    assert [job.folder.relative_to(tmp_path / "out").as_posix() for job in made[:4]] == [
        "lora/order-0-seed-0", "ewc/order-0-seed-0", "lora/order-1-seed-0", "ewc/order-1-seed-0"
    ]  # fmt: skip
    assert len({job.folder for job in made}) == 8
    (job,) = planned(["lora"])
    begun = job.to_json(open_sequence(str(three)))
    RunFolder(job.folder).begin(begun)
    assert planned(["lora"]) == [job]
    former = {"batch" if key == "batch_size" else key: value for key, value in begun["settings"].items()}
    RunFolder(job.folder).begin({**begun, "settings": former})
    assert planned(["lora"]) == [job]
    with pytest.raises(MnemonError, match=r"another value of 'settings' \(rank 16, not 4\)"):
        planned(["lora"], settings={"lora": {**SMALL, "rank": 4}})
    with pytest.raises(MnemonError, match=r"another value of 'score' \(pictures 2, not 8\)"):
        planned(["lora"], eval_settings=EvalSettings(8, num_inference_steps=1, batch_size=32))
    with pytest.raises(MnemonError, match=r"another value of 'score' \(pictures 2, not 8\)"):  # of another method
        planned(["ewc"], eval_settings=EvalSettings(8, num_inference_steps=1, batch_size=32))
    with pytest.raises(MnemonError, match=r"another value of 'sequence' \(.*, not world-6\)"):
        plan(job.out, "world-6", ["ewc"], 1, 1, base=job.base, eval_settings=job.eval_settings, eval_at=job.eval_at)
    with pytest.raises(MnemonError, match="name at least one"):
        planned([])
    with pytest.raises(MnemonError, match="settings for 'ewc', which is not among"):
        plan(tmp_path, str(three), ["lora"], 1, 1, {"ewc": {}})
    with pytest.raises(MnemonError, match="did you mean 'stamina'"):
        plan(tmp_path, str(three), ["stmina"], 1, 1)


def test_a_combination_says_what_it_was_and_points_beyond_the_end_do_not_count() -> None:
    job = Job(Path("out"), "world-6", "lora", 0, 0)
    assert job.full_evaluations(10) == [1, 10] and job.full_evaluations(60) == [1, 10, 25, 50, 60]
    assert replace(job, eval_at=(99,)).full_evaluations(3) == [3]
    with pytest.raises(MnemonError, match="1 or more"):
        plan(Path("out"), "world-6", ["lora"], 1, 1, eval_at=(0,))
