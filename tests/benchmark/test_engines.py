import json
from pathlib import Path

import pytest
import torch

from mnemon.benchmark import Job, ProcessExecutor, RayExecutor, SerialExecutor, engine_named, run_bench
from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import Progress, RunFolder
from mnemon.library import Library
from tests.benchmark import workers
from tests.benchmark.conftest import Planned


def made(out: Path, *methods: str) -> list[Job]:
    return [Job(out, "world-6", method, 0, 0) for method in methods]


def failure(job: Job) -> dict[str, str]:
    failed: dict[str, str] = json.loads((job.folder / "failed.json").read_text())
    return failed


def test_a_job_whose_worker_dies_is_tried_again_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = made(tmp_path, "lora", "stamina", "ewc")
    ended = []
    ProcessExecutor(2).run(
        jobs, workers.die_at_first, lambda job, progress: ended.append(job) if progress is None else None
    )
    assert {job.method for job in ended} == {"lora", "stamina", "ewc"} and len(ended) == 3
    assert [(job.folder / "tries").read_text() for job in jobs] == ["2", "3", "1"]
    assert [(job.folder / "done").exists() for job in jobs] == [True, False, True]
    assert "died 3 times" in failure(jobs[1])["error"] and failure(jobs[1])["where"] == "trying"
    assert not (jobs[0].folder / "failed.json").exists() and not (jobs[0].folder / "progress.json").exists()


def test_a_job_done_in_a_worker_is_the_job_done_here(planned: Planned) -> None:
    (here,), (apart,) = planned(["lora"], "here"), planned(["lora"], "apart")
    told: list[Progress | None] = []
    assert run_bench([here], SerialExecutor(), lambda job, progress: told.append(progress)).failed == {}
    assert run_bench([apart], ProcessExecutor(1)).failed == {}
    assert told[-1] is None and max(one.done for one in told if one) <= 3
    ours, theirs = (RunFolder(job.folder).record() for job in (here, apart))
    assert ours.finished and theirs.finished and ours.rows.keys() == theirs.rows.keys()
    assert all(torch.allclose(ours.features[key], theirs.features[key], atol=1e-3) for key in ours.features)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::ray")
def test_a_cluster_does_the_same_jobs_and_survives_a_dead_worker(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mnemon[cluster]'")
    jobs = planned(["lora"], orders=2)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        monkeypatch.setattr("mnemon.benchmark.bench.run_job", workers.run_but_die_at_first)
        ended = run_bench(jobs, RayExecutor())
    finally:
        ray.shutdown()
    assert (ended.jobs, ended.before, ended.failed) == (2, 0, {})
    assert all(len(Library.open(job.folder / "library").names()) == 3 for job in jobs)


def test_engines_are_asked_for_by_name() -> None:
    with pytest.raises(MnemonError, match="choose from here, processes, ray"):
        engine_named("slurm")
    with pytest.raises(MnemonError, match="1 or more"):
        engine_named("processes", 0)
