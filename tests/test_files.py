import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mnemon.errors import WriteError
from mnemon.files import file_sha256, new_folder, write_bytes, write_json, write_png, write_text
from mnemon.tensor_files import tensors_sha256, write_safetensors

WRITERS = {
    "x.bin": lambda path: write_bytes(path, b"new"),
    "x.txt": lambda path: write_text(path, "new\n"),
    "x.json": lambda path: write_json(path, {"new": "ü"}),
    "x.safetensors": lambda path: write_safetensors(path, {"new": torch.ones(2)}),
    "x.png": lambda path: write_png(path, Image.new("RGB", (2, 2), "red")),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, name: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "made" / name
    WRITERS[name](path)
    new = path.read_bytes()
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="disk full"):
            WRITERS[name](path)
    assert path.read_bytes() == b"old"
    WRITERS[name](path)
    assert path.read_bytes() == new and [file.name for file in path.parent.iterdir()] == [name]


def test_what_is_written_is_read_back_by_others(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
    assert (tmp_path / "x.txt").read_bytes() == b"new\n"
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "new": "ü"\n}\n'
    assert torch.equal(load_file(tmp_path / "x.safetensors")["new"], torch.ones(2))
    with Image.open(tmp_path / "x.png") as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as aside:
        write_text(aside / "a", "half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.part").mkdir()  # what a kill leaves
    (tmp_path / ".out.part" / "rubbish").touch()
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as aside:
        write_text(aside / "a", "whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "mine", "")
    with pytest.raises(WriteError, match="out' could not be written"), new_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "the folder that you are in"),
        ("../here", "the folder that you are in"),
        ("file/out", "could not be written"),
        ("x" * 300, "could not be written"),
        ("/proc/out", "could not be written"),
    ],
)
def test_where_no_folder_can_be_made_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("file").touch()
    with pytest.raises(WriteError, match=said), new_folder(Path(name)):
        pass
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, mask: int) -> None:
    (tmp_path / "x.safetensors.part").touch(0o600)  # of a call that was cut short
    before = os.umask(mask)
    try:
        for name, write in WRITERS.items():
            write(tmp_path / name)
        with new_folder(tmp_path / "out") as aside:
            (aside / "unet").mkdir()
            save_file({"weight": torch.ones(2)}, aside / "unet" / "theirs.safetensors")
    finally:
        os.umask(before)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == dict.fromkeys([*WRITERS, "theirs.safetensors"], 0o666 & ~mask)


def test_a_hash_of_tensors_says_names_dtypes_shapes_and_bytes_in_order_of_names() -> None:
    tensors = {"b": torch.arange(6).reshape(2, 3).T, "a": torch.ones(2, dtype=torch.bfloat16)}
    expected = hashlib.sha256(b"a torch.bfloat16 (2,)\n" + b"\x80\x3f" * 2)
    expected.update(b"b torch.int64 (3, 2)\n" + b"".join(n.to_bytes(8, "little") for n in (0, 3, 1, 4, 2, 5)))
    assert tensors_sha256(tensors) == expected.hexdigest()
    assert tensors_sha256({}, head="x") == hashlib.sha256(b"x").hexdigest()
    changed = [{**tensors, "c": torch.ones(0)}, {**tensors, "a": torch.ones(2)}, {**tensors, "b": tensors["b"].T}]
    assert len({tensors_sha256(one) for one in (tensors, *changed)}) == 4


def test_a_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", [1])
    assert file_sha256(tmp_path / "x.json") == hashlib.sha256((json.dumps([1], indent=2) + "\n").encode()).hexdigest()
