"""Which settings a comparison gives the methods, and that the record says so."""

import json
import shutil
from pathlib import Path

import pytest

from mnemon.benchmark import SerialExecutor, plan, run_bench
from mnemon.benchmark.protocols import PROTOCOLS, method_by
from mnemon.errors import MnemonError
from mnemon.evaluation.run_folder import RunFolder
from mnemon.methods import METHODS, method_from, method_of_record, method_settings
from tests.benchmark.conftest import Planned

RESULTS = Path(__file__).parents[2] / "results"


def test_on_level_ground_only_the_mechanism_differs() -> None:
    made = {name: method_settings(method_by("level", name)) for name in METHODS}
    for key in ("steps", "batch_size", "num_vectors", "token_init", "token_lr", "use_class_noun"):
        assert {settings[key] for settings in made.values()} == {PROTOCOLS["level"][key]}
    for key in ("rank", "class_vector", "rare_words"):
        assert {settings[key] for settings in made.values() if key in settings} == {PROTOCOLS["level"][key]}
    for name, settings in made.items():
        own = method_settings(method_from(name))
        assert all(settings[key] == own[key] for key in own if key not in PROTOCOLS["level"])
        assert method_by("level", name).prompt_name("rex", "dog") == "<rex> dog"
        assert method_by("paper", name) == method_from(name)
    with pytest.raises(MnemonError, match="no protocol 'fair': choose from paper, level"):
        method_by("fair", "lora")


def test_a_setting_that_is_given_goes_before_the_protocol_and_all_records_say_so(planned: Planned) -> None:
    (job,) = planned(["lora"], protocol="level", settings={"lora": {"steps": 2, "batch": 8}}, alone=False)
    assert run_bench([job], SerialExecutor()).failed == {}
    written = json.loads((job.folder / "job.json").read_text())
    assert written["protocol"] == "level" and written["set"] == {"steps": 2}
    assert (written["settings"]["steps"], written["settings"]["num_vectors"]) == (2, 3)
    settings = json.loads((job.out / "settings.json").read_text())
    assert settings["protocol"] == "level" and settings["set"] == {"lora": {"steps": 2}}
    for page in (job.out / "report.html", job.out / "report.md"):
        assert "level" in page.read_text() and "1 run, with steps=2" in page.read_text()


def test_a_folder_has_one_protocol_and_an_older_one_has_that_of_the_papers(planned: Planned) -> None:
    for protocol, other in (("paper", "level"), ("level", "paper")):
        (job,) = planned(["lora"], protocol, protocol=protocol, alone=False)
        run_bench([job], SerialExecutor())
        for method in ("lora", "ewc"):
            with pytest.raises(MnemonError, match=f"another value of 'protocol' \\({protocol}, not {other}\\)"):
                planned([method], protocol, protocol=other)
    (job,) = planned(["lora"], "paper")
    begun = json.loads((job.folder / "job.json").read_text())
    RunFolder(job.folder).begin({key: value for key, value in begun.items() if key != "protocol"})
    assert planned(["lora"], "paper") == [job]
    with pytest.raises(MnemonError, match="another value of 'protocol'"):
        planned(["ewc"], "paper", protocol="level")


def test_published_results_are_gone_on_with_under_the_settings_they_had(tmp_path: Path) -> None:
    out = Path(shutil.copytree(RESULTS / "world-10", tmp_path / "world-10"))
    jobs = {path.parts[-3]: json.loads(path.read_text()) for path in out.glob("*/order-0-seed-0/job.json")}
    settings = {name: method_settings(method_of_record(name, job["settings"])) for name, job in jobs.items()}
    planned = plan(out, "world-10", list(jobs), orders=3, seeds=1, settings=settings)
    assert all(RunFolder(job.folder).finished(10) for job in planned) and len(planned) == 3 * len(jobs)
