"""What a run left in its folder is read back; what is wrong with it is said."""

import json

import numpy as np
import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.evaluation.results import Results
from mnemon.evaluation.run_folder import RunFolder
from mnemon.files import write_json
from tests.evaluation.runs import identity, write_failure, write_run


def test_a_run_is_read_back_in_the_order_in_which_it_learned(tmp_path):
    record = RunFolder(write_run(tmp_path, "lora", order=1, seed=3, points=(1, 4))).record()
    assert (record.method, record.order, record.seed, record.points) == ("lora", 1, 3, (1, 4))
    assert record.names == ("c02", "c03", "c04", "c01") and record.finished
    assert record.costs["seconds"]["c03"] == 13.0 and record.images_of_a_cell == 4
    torch.testing.assert_close(record.references("c03", "identity")[:, 1], torch.ones(3))
    assert record.images(2, "c02", "image") is None and record.images(4, "c02", "image") is not None
    assert (4, "c02") in record.strips and (2, "c02") not in record.strips


def test_the_matrix_knows_what_was_not_scored(tmp_path):
    matrix = RunFolder(write_run(tmp_path, "lora", points=(1, 4))).record().matrix("identity_alignment")
    known = [[identity(0.9, 0.02, t, j) for j in range(1, 5)] for t in range(1, 5)]
    scored = np.eye(4, dtype=bool)
    scored[[0, 3]] = True
    scored &= np.tri(4, dtype=bool)
    np.testing.assert_allclose(matrix.values[scored], np.array(known)[scored])
    assert np.isnan(matrix.values[~scored]).all()
    assert (matrix.cells == np.tri(4, dtype=bool)).all()


def damaged(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    write_json(folder / name, value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("job.json", lambda job: job.pop("order"), r"job.json needs 'order' as a whole number, it has nothing"),
        ("job.json", lambda job: job.update(seed="0"), r"needs 'seed' as a whole number, it has '0'"),
        ("job.json", lambda job: job.update(concepts=[]), r"needs 'concepts' as a list of objects, at least one"),
        ("job.json", lambda job: job["concepts"][1].pop("name"), r"has a concept without a name"),
        ("rows.json", lambda rows: rows.update(last={}), r"rows.json has no row of scores at 'last'"),
        ("costs.json", lambda costs: costs.update(bytes={"c01": "many"}), r"costs.json needs 'bytes' as a number"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, name, change, message):
    folder = write_run(tmp_path, "lora", strips=False)
    damaged(folder, name, change)
    with pytest.raises(MnemonError, match=message):
        RunFolder(folder).record()


def test_a_folder_that_is_no_run_and_files_cut_short_are_refused(tmp_path):
    with pytest.raises(MnemonError, match="not the folder of a benchmark run"):
        RunFolder(tmp_path).record()
    folder = write_run(tmp_path, "lora", strips=False)
    (folder / "features.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(MnemonError, match=r"features.safetensors cannot be read"):
        RunFolder(folder).record()
    (folder / "rows.json").write_text("{")
    with pytest.raises(MnemonError, match=r"rows.json cannot be read as JSON"):
        RunFolder(folder).record()


def test_runs_without_a_result_are_kept_with_their_reason(tmp_path):
    write_run(tmp_path, "lora", strips=False)
    write_failure(tmp_path, "fl2t", error="Out of memory.")
    (write_run(tmp_path, "lora", order=1, strips=False) / "costs.json").unlink()
    (write_run(tmp_path, "lora", order=2, strips=False) / "job.json").write_text("[]")
    results = Results.read(tmp_path)
    assert results.methods == ("fl2t", "lora") and [one.order for one in results.records] == [0]
    assert [(one.method, one.where) for one in results.problems] == [
        ("fl2t", "learning c03"), ("lora", "after concept 4"), ("lora", "reading its files"),
    ]  # fmt: skip
    assert "Out of memory." in results.problems[0].error and "job.json should hold" in results.problems[2].error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job: job.update(settings={"rank": 8}), "method settings"),
        (lambda job: job["score"].update(steps=2), "score settings"),
        (lambda job: job.update(sequence="other"), "sequence"),
        (lambda job: job.update(base="another"), "base"),
    ],
)
def test_runs_that_do_not_compare_are_refused(tmp_path, change, message):
    write_run(tmp_path, "lora", strips=False)
    damaged(write_run(tmp_path, "lora", order=1, strips=False), "job.json", change)
    with pytest.raises(MnemonError, match=f"order-0-seed-0 and .*order-1-seed-0 differ in {message}"):
        Results.read(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(MnemonError, match="no runs in"):
        Results.read(tmp_path)
