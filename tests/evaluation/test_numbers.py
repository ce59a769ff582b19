"""A run's figures and their means against values worked out by hand."""

import json
import statistics

import pytest

from mnemon.evaluation.figures import ALONE, FIGURES, SUMMARY
from mnemon.evaluation.intervals import interval, t_quantile
from mnemon.evaluation.numbers import figures_of, interval_of, multi_alignment, spread_over_orders
from mnemon.evaluation.results import Results
from mnemon.evaluation.run_folder import RunFolder
from mnemon.files import write_json
from mnemon.report.benchmark_page import write
from mnemon.report.summary import figures_by_method, summary, write_numbers
from tests.evaluation.runs import write_failure, write_run

NAMES = (
    "image_alignment", "identity_alignment", "text_alignment", "multi_text_alignment", "a_mmd", "f_mmd", "forgetting",
    "learning_identity_first10", "learning_identity_last10", "zero_shot_drift", "parameters", "bytes",
    "seconds_per_concept", "fusion_seconds",
)  # fmt: skip


def figures(out, **options):
    return figures_of(RunFolder(write_run(out, "lora", strips=False, **options)).record())


def test_the_figures_of_a_run_by_hand(tmp_path):
    """R[t, j] = 0.9 - 0.1 (t - j), four concepts, all known."""
    found = figures(tmp_path, drop=0.1)
    assert found == {
        "identity_alignment": pytest.approx(0.75), "image_alignment": pytest.approx(0.75),
        "text_alignment": pytest.approx(0.3), "clip_score": pytest.approx(0.75),
        "multi_text_alignment": pytest.approx(0.25), "multi_identity_alignment": 0.5, "multi_image_alignment": 0.6,
        "forgetting": pytest.approx(0.2), "forgetting_image": pytest.approx(0.2),
        "forgetting_from_best": pytest.approx(0.2), "forgetting_one_step": pytest.approx(0.1),
        "backward_transfer": pytest.approx(-0.2), "retention": pytest.approx(0.75 / 0.9),
        "learning_accuracy": pytest.approx(0.9), "learning_identity_first10": pytest.approx(0.9),
        "learning_identity_last10": pytest.approx(0.9), "identity_of_ceiling": pytest.approx(0.75),
        "recognised": 1.0, "picture_error": pytest.approx(0, abs=1e-6),
        "zero_shot_drift": pytest.approx(0.05), "general_text_alignment": pytest.approx(0.26),
        "general_attribute_accuracy": pytest.approx(0.8), "noun_accuracy": 0.75, "background_accuracy": 0.5,
        "parameters": 1000, "bytes": 4000, "seconds_per_concept": 10, "fusion_seconds": 0, "fusion_peak_bytes": 0,
        "draw_seconds_per_picture": 0.5, "peak_memory_bytes": 1e9,
        "alone_identity_alignment": 1.0, "identity_of_alone": pytest.approx(0.75),
        "mmd_just_learned": pytest.approx(mmd(0.9), abs=1e-6), "kid": pytest.approx(mean_mmd(0.1, 3), abs=1e-6),
        "a_mmd": pytest.approx(mean_mmd(0.1, 2), abs=1e-6),
        "f_mmd": pytest.approx(sum(drift(0.9, last) for last in (0.6, 0.7, 0.8)) / 3, abs=1e-6),
    }  # fmt: skip
    assert found.keys() == FIGURES.keys()


def mmd(cosine, degree=2):
    """Three equal references against four images at `cosine` from them, each with an axis of its own for the rest:
    two images have the cosine `cosine`²."""
    return 2**degree + (1 + cosine**2) ** degree - 2 * (1 + cosine) ** degree


def mean_mmd(drop, degree):
    return sum(mmd(0.9 - drop * steps, degree) for steps in range(4)) / 4


def drift(first, last):
    """Different images at both times share the first axis alone; images of one seed are left out."""
    return (1 + first**2) ** 2 + (1 + last**2) ** 2 - 2 * (1 + first * last) ** 2


def test_what_was_not_scored_is_none_and_never_guessed(tmp_path):
    found = figures(tmp_path, drop=0.1, points=(1, 4))
    assert {name for name, value in found.items() if value is None} == {"forgetting_from_best", "forgetting_one_step"}
    assert found["forgetting"] == pytest.approx(0.2)


def test_without_features_the_scores_remain(tmp_path):
    folder = write_run(tmp_path, "lora", strips=False)
    (folder / "features.safetensors").unlink()
    found = figures_of(RunFolder(folder).record())
    missing = {"a_mmd", "f_mmd", "kid", "mmd_just_learned", "zero_shot_drift", "recognised", "picture_error"}
    assert {name for name, value in found.items() if value is None} == missing


def test_a_report_of_runs_whose_features_were_left_out_has_the_numbers_of_the_one_before(tmp_path):
    folders = [write_run(tmp_path, "lora", order, drop=0.1) for order in range(2)]
    files = ("summary.json", "figures.json", "matrices.json")
    write(tmp_path)
    before = [(tmp_path / name).read_text() for name in files]
    for folder in folders:
        (folder / "features.safetensors").unlink()
    assert "Confusion at the end" in write(tmp_path).read_text(encoding="utf-8")
    assert [(tmp_path / name).read_text() for name in files] == before


def test_students_interval():
    assert [round(t_quantile(n), 3) for n in (1, 2, 4, 9, 100)] == [12.706, 4.303, 2.776, 2.262, 1.984]  # any table
    found = interval([1.0, None, 2.0, 3.0])
    assert found.runs == 3 and found.mean == 2 and found.high - 2 == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert interval([0.5]) == interval([None, 0.5]) and interval([0.5]).low is interval([]).mean is None


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = statistics.NormalDist()
    draws = [rng.samples(4, seed=seed) for seed in range(2000)]
    inside = [(found := interval(sample)).low <= 0 <= found.high for sample in draws]
    assert sum(inside) / len(inside) == pytest.approx(0.95, abs=0.015)


def test_the_summary_has_the_promised_form(tmp_path):
    for order in range(3):
        write_run(tmp_path, "lora", order, quality=0.9 - 0.1 * order, strips=False)
    write_failure(tmp_path, "fl2t")
    results = Results.read(tmp_path)
    write_numbers(results, figures_by_method(results))
    methods = json.loads((tmp_path / "summary.json").read_text())["methods"]
    assert methods.keys() == {"lora", "fl2t"} and set(SUMMARY) == set(NAMES)
    assert all(list(metrics) == [*SUMMARY, *ALONE, "trials"] for metrics in methods.values())
    assert methods["lora"]["alone_identity_alignment"]["mean"] == 1 and methods["lora"]["trials"] == 1
    found = methods["lora"]["learning_identity_first10"]
    assert found == {"mean": pytest.approx(0.8), "low": pytest.approx(0.8 - 0.2484, abs=1e-4),
                     "high": pytest.approx(0.8 + 0.2484, abs=1e-4), "runs": 3}  # fmt: skip
    assert methods["fl2t"]["identity_alignment"] == {"mean": None, "low": None, "high": None, "runs": 0}


def test_what_concepts_reach_alone_is_in_the_summary_where_it_was_measured(tmp_path):
    write_run(tmp_path, "lora", strips=False, alone=None)
    write(tmp_path)
    (found,) = json.loads((tmp_path / "summary.json").read_text())["methods"].values()
    assert list(found) == [*SUMMARY, "trials"]
    write_json(tmp_path / "lora" / "order-0-seed-0" / "alone.json", {"c01": {"identity_alignment": 0.9}})
    write(tmp_path)
    (found,) = json.loads((tmp_path / "summary.json").read_text())["methods"].values()
    assert list(found) == [*SUMMARY, "trials"]  # one concept of four is no mean


def test_matrices_settings_and_machine_lie_beside_the_summary(tmp_path):
    write_run(tmp_path, "lora", order=1, points=(1, 4), strips=False)
    write_failure(tmp_path, "fl2t")
    results = Results.read(tmp_path)
    write_numbers(results, figures_by_method(results))
    (run,) = json.loads((tmp_path / "matrices.json").read_text())["runs"]
    cells = run["scores"]["identity_alignment"]
    assert list(cells) == ["1", "2", "3", "4"] and list(cells["2"]) == ["c03"] and len(cells["4"]) == 4
    assert run["confusion"][0] == [1, 0, 0, 0] and len(run["multi"]) == 2
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["methods"] == {"lora": {"rank": 4}} and settings["runs"][0]["machine"]["cores"] == 2
    assert settings["failed"][0]["error"] == "Out of <memory>."
    values = json.loads((tmp_path / "figures.json").read_text())["methods"]["lora"]["retention"]["values"]
    assert len(values) == 1 and values[0] < 1


def test_the_spread_is_over_orders_and_not_over_seeds(tmp_path):
    for order, seed, quality in ((0, 0, 0.8), (0, 1, 0.6), (1, 0, 0.9), (1, 1, 0.7)):
        write_run(tmp_path, "lora", order, seed, quality=quality, drop=0, strips=False)
    results = Results.read(tmp_path)
    runs = figures_by_method(results)["lora"]
    assert spread_over_orders(results.records, runs, "identity_alignment") == pytest.approx(0.1 / 2**0.5)
    assert spread_over_orders(results.records[:2], runs[:2], "identity_alignment") is None
    assert interval_of(runs, "identity_alignment").mean == pytest.approx(0.75)
    assert summary({"lora": runs})["methods"]["lora"]["identity_alignment"]["runs"] == 4


def test_multi_concept_scores_by_number_of_concepts():
    entries = [{"concepts": ["a", "b"], "text_alignment": 0.2}, {"concepts": ["a", "b", "c"], "text_alignment": 0.4}]
    assert multi_alignment(entries, "text_alignment") == pytest.approx(0.3)
    assert multi_alignment(entries, "text_alignment", 3) == 0.4
    assert multi_alignment(entries, "text_alignment", 4) is None
