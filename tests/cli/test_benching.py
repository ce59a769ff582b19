import json
from pathlib import Path

from mnemon.world import thing_concept
from tests.cli.conftest import Command


def test_bench_runs_goes_on_and_says_what_failed(mnemon: Command, world_folder: Path, tmp_path: Path) -> None:
    for name, seed in (("sip", 9001), ("tom", 9002)):
        thing_concept(name, seed, "mug").write(tmp_path / "mine" / name, 2, seed=1)
    small = ["--base", world_folder, "--sequence", "mine", "--out", "runs", "--pictures", 1, "--draw-steps", 1]
    steps = [text for method in ("lora", "single") for text in ("--set", f"{method}.steps=1")]
    first = mnemon("bench", *small, "--methods", "lora", *steps[:2], "--json")
    assert first.code == 0 and {**first.json, "page": None} == {
        "out": "runs", "jobs": 1, "done_before": 0, "failed": {}, "page": None, "summary": "runs/summary.json"
    }  # fmt: skip
    assert Path(first.json["page"]).is_file() and Path(first.json["summary"]).is_file()
    assert json.loads(Path("runs/lora/order-0-seed-0/job.json").read_text())["settings"]["steps"] == 1
    wild = ["--set", "single.rate=1e30", "--set", "single.steps=2"]  # the second step sees what the first did
    second = mnemon("bench", *small, "--methods", "lora,single", *steps, *wild)
    assert second.code == 1 and "1 of 2 jobs done in runs." in second.out
    assert "Failed: single, order 0, seed 0: learning <sip> <tom>: The loss" in second.out.replace("\n", " ")
    assert "lora, order 0, seed 0: ended" in second.err


def test_mistakes_are_told_before_anything_runs(mnemon: Command) -> None:
    assert "names no method" in mnemon("bench", "--set", "rank=4").err
    assert "write them as '--eval-at 1,10,25'" in mnemon("bench", "--points", "some").err
    assert "There is no method 'loraa'; did you mean 'lora'?" in mnemon("bench", "--methods", "loraa").err
    assert "There is no protocol 'fair'" in mnemon("bench", "--protocol", "fair").err
    assert "no file of evaluation prompts" in mnemon("bench", "--eval-prompts", "mine.txt").err
    assert "There is no engine 'slurm'" in mnemon("bench", "--engine", "slurm").err
    assert not Path("benchmark").exists()
