"""Prompts, guidance, scheduler, negative prompt, seeds and the split of photos as a paper has them."""

import json
from typing import Any

import pytest

from mnemon.benchmark import SerialExecutor, run_bench, runner
from mnemon.errors import MnemonError
from mnemon.evaluation import EvalSettings
from mnemon.evaluation.run_folder import RunFolder
from mnemon.sampling import sampler
from tests.benchmark.conftest import Planned

AS_PRINTED = EvalSettings(
    3,
    2024,
    7.5,
    2,
    32,
    scheduler="DPMSolverMultistep",
    negative_prompt="lowres",
    templates=("a {} on a rug", "{} at night"),
)


def test_a_job_is_scored_as_asked_and_says_so(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    real = sampler._start

    def noted(base: Any, seeds: Any, settings: Any, *more: Any) -> Any:
        drawn.append((list(seeds), settings))
        return real(base, seeds, settings, *more)

    asked: list[Any] = []
    measured = runner.evaluate

    def evaluate(*arguments: Any, prompts: Any, **options: Any) -> Any:
        asked.extend(prompts.values())
        return measured(*arguments, prompts=prompts, **options)

    monkeypatch.setattr(sampler, "_start", noted)
    monkeypatch.setattr(runner, "evaluate", evaluate)
    (job,) = planned(["lora"], eval_settings=AS_PRINTED, eval_at=(), hold_out=False)
    assert run_bench([job], SerialExecutor()).failed == {}
    assert asked[0].prompts == ["a <cat> cat on a rug", "<cat> cat at night", "a <cat> cat on a rug"]
    assert asked[0].words == ["a cat on a rug", "cat at night", "a cat on a rug"]
    settings = {(one.guidance_scale, one.num_inference_steps, one.negative_prompt, one.scheduler) for _, one in drawn}
    assert settings == {(7.5, 2, "lowres", "DPMSolverMultistep")} and any(s == [2024, 2025, 2026] for s, _ in drawn)
    record = RunFolder(job.folder).record()
    assert not record.hold_out and record.not_held_out == record.names
    assert {**AS_PRINTED.to_json(), "points": [3]} == record.score
    assert "All photos of every concept are both trained on" in (job.out / "report.html").read_text()
    assert "photos all trained on and scored against" in (job.out / "report.md").read_text()
    trained = json.loads(next((job.folder / "library" / "history").glob("*1.json")).read_text())
    assert len(json.dumps(trained).split("sha256")) > 6  # all six photos of the cat


def test_what_is_scored_otherwise_does_not_compare(planned: Planned) -> None:
    (job,) = planned(["lora"], eval_at=())
    run_bench([job], SerialExecutor())
    with pytest.raises(MnemonError, match="another value of 'hold_out'"):
        planned(["ewc"], eval_at=(), hold_out=False)
    for change in ({"scheduler": "DDIM"}, {"negative_prompt": "blur"}, {"templates": ("a {}",)}):
        other = EvalSettings(2, num_inference_steps=1, batch_size=32, **change)
        with pytest.raises(MnemonError, match="another value of 'score'"):
            planned(["ewc"], eval_at=(), eval_settings=other)
    assert "hold_out" not in json.loads((job.folder / "job.json").read_text())
