"""`mnemon export` and `mnemon import`, as a user meets them."""

import json
import shutil
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from huggingface_hub import HfApi
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mnemon.errors import MnemonError
from mnemon.library import Library
from tests.cli.conftest import Command

LIB = ("--library", "lib")


@pytest.mark.usefixtures("quick_plots")
def test_a_concept_goes_out_and_comes_back(mnemon: Command, taught: Path, world_folder: Path) -> None:
    value = mnemon("export", "sip", *LIB, "--as", "kohya", "--out", "out", "--json").json
    assert value["concepts"] == ["sip"] and value["lora"]["rank"] == 2 and value["lora"]["error"] < 1e-6
    assert value["files"] == ["README.md", "embeddings/sip.safetensors", "sip.safetensors"]
    files = ("out/sip.safetensors", "out/embeddings/sip.safetensors")
    value = mnemon("import", *files, *LIB, "--name", "again", "--noun", "mug", "--json").json
    row = value.pop("row")
    counts = {"concept": "again", "state": 3, "layers": value["layers"], "vectors": 1}
    assert value == {**counts, "words": None, "left": [], "notes": []}
    assert row["concepts"].keys() == {"sip", "tom", "again"} and Library.open("lib").rows()[3] == row
    before, _, back = Library.open("lib").learned()
    assert all((back.deltas[target].matrix() - delta.matrix()).norm() < 1e-6 for target, delta in before.deltas.items())
    assert mnemon("generate", "a photo of <again> mug", *LIB, "--steps", 2, "-n", 1).code == 0
    assert mnemon("show", "again", *LIB).code == 0 and mnemon("evaluate", *LIB).code == 0


def test_a_new_library_from_an_embedding_by_its_file_name(mnemon: Command, world_folder: Path, taught: Path) -> None:
    mnemon("export", "tom", *LIB, "--as", "embedding", "--out", "out")
    new = ("--library", "new", "--base", world_folder, "--method", "textual-inversion")
    result = mnemon("import", "out/embeddings/tom.safetensors", *new)
    assert result.code == 0 and "<tom>" in result.out and Library.open("new").names() == ["tom"]
    taken = mnemon("import", "out/embeddings/tom.safetensors", *new)
    assert taken.code == 1 and "already has a concept 'tom'" in taken.err


def test_an_import_is_scored_against_photos_given(mnemon: Command, taught: Path, photos: Path) -> None:
    mnemon("export", "tom", *LIB, "--as", "kohya", "--out", "out")
    files = ("out/tom.safetensors", "out/embeddings/tom.safetensors", *LIB)
    Path("held-out").mkdir()
    for image in (photos / "tom").glob("*.png"):
        shutil.copy(image, "held-out")
    given = mnemon("import", *files, "--name", "again", "--references", "held-out")
    assert given.code == 0 and "photos given" in given.out
    scores = Library.open("lib").rows()[3]["concepts"]["again"]
    assert scores["identity_alignment"] is not None and scores["references"] == 3
    quiet = mnemon("import", *files, "--name", "third", "--no-score", "--json").json
    assert quiet["row"] is None and 4 not in Library.open("lib").rows()


def test_nothing_is_imported_beside_a_candidate(mnemon: Command, taught: Path) -> None:
    mnemon("export", "tom", *LIB, "--as", "embedding", "--out", "out")
    (taught / "candidate").mkdir()
    (taught / "candidate" / "candidate.json").write_text("{}")
    assert "kept aside" in mnemon("import", "out/embeddings/tom.safetensors", *LIB, "--name", "new").err


def test_the_headers_say_trigger_base_and_lineage(mnemon: Command, taught: Path) -> None:
    assert mnemon("export", *LIB, "--as", "kohya", "--out", "out").code == 0
    with safe_open("out/sip-tom.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["modelspec.trigger_phrase"] == "sip mug, tom cat" and header["modelspec.merged_from"] == "sip, tom"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora" and header["ss_network_dim"] == "4"
    assert json.loads(header["ss_tag_frequency"]) == {"mnemon": {"sip mug": 3, "tom cat": 3}}
    lineage = json.loads(header["mnemon.lineage"])
    assert [one["name"] for one in lineage["concepts"]] == ["sip", "tom"] and lineage["method"] == "lora"
    alphas = [float(value) for key, value in load_file("out/sip-tom.safetensors").items() if key.endswith(".alpha")]
    assert set(alphas) == {4.0}


def test_the_card_has_a_gallery(mnemon: Command, taught: Path) -> None:
    result = mnemon("export", *LIB, "--pictures", 2, "--out", "out")
    card = Path("out/README.md").read_text()
    assert result.code == 0 and "url: pictures/tom-1.png" in card and "`<sip> mug`" in card
    assert sorted(file.name for file in Path("out/pictures").iterdir()) == [
        "sip-0.png",
        "sip-1.png",
        "tom-0.png",
        "tom-1.png",
    ]
    assert "load_lora_weights" in card and "load_textual_inversion" in card


def test_fewer_ranks_are_admitted(mnemon: Command, taught: Path) -> None:
    value = mnemon("export", *LIB, "--rank", 1, "--out", "out", "--json").json
    assert value["lora"]["rank"] == 1 and 0 < value["lora"]["error"] < 1
    assert f"{value['lora']['error']:.2e}" in value["notes"][0]


def test_push_uploads_the_folder(mnemon: Command, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = create_autospec(HfApi, instance=True)  # the interface as it is, without the hub
    monkeypatch.setattr("mnemon.export.hub.HfApi", lambda: hub)
    assert mnemon("export", *LIB, "--out", "out", "--push", "me/concepts").code == 0
    hub.create_repo.assert_called_once_with("me/concepts", private=True, exist_ok=True)
    assert hub.upload_folder.call_args.kwargs["folder_path"] == "out"
    hub.create_repo.side_effect = OSError("no route to host")
    refused = mnemon("export", *LIB, "--out", "other", "--push", "me/concepts")
    assert refused.code == 1 and "no route to host" in refused.err and Path("other/README.md").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("rex",), "it has: sip, tom"),
        (("--as", "comfy"), "choose kohya or diffusers"),
        (("--rank", 0), "A rank of 0"),
        (("--rank", 2, "--energy", 0.5), "give one of them"),
        (("--energy", 0.5, "--as", "folder"), "needs neither"),
        (("--out", "lib"), "not an empty folder"),
    ],
)
def test_what_cannot_be_exported(mnemon: Command, taught: Path, arguments: tuple[object, ...], message: str) -> None:
    result = mnemon("export", *LIB, "--out", "out", *arguments)
    assert result.code == 1 and message in result.err and result.err.count("\n") == 1
    assert {path.name for path in Path.cwd().iterdir()} == {"lib"}


def test_what_cannot_be_imported_changes_nothing(mnemon: Command, taught: Path, world_folder: Path) -> None:
    mnemon("export", "sip", *LIB, "--as", "kohya", "--out", "out")
    whole = Path("out/sip.safetensors").read_bytes()
    Path("short.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("old.ckpt").write_bytes(b"")
    tensors = load_file("out/sip.safetensors")
    save_file({key.replace("blocks", "layers"): t for key, t in tensors.items()}, "other.safetensors")
    for file, message in (("short", "cut short"), ("old.ckpt", "pickle"), ("other", "made for another base")):
        name = file if "." in file else f"{file}.safetensors"
        for library in (LIB, ("--library", "new", "--base", world_folder)):
            result = mnemon("import", name, *library)
            assert result.code == 1 and message in result.err and result.err.count("\n") == 1
    assert not Path("new").exists() and Library.open("lib").names() == ["sip", "tom"]
    assert len(list(Path("lib/concepts").iterdir())) == 2


def test_encoders_that_cannot_be_loaded_stop_an_import_before_anything_is_sampled(
    mnemon: Command, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise MnemonError("CLIP cannot be fetched")

    sampled: list[object] = []
    mnemon("export", "tom", *LIB, "--as", "embedding", "--out", "out")
    monkeypatch.setattr("mnemon.evaluation.encoders.WorldEncoders.text", missing)
    monkeypatch.setattr("mnemon.training.scoring.evaluate", lambda *_, **__: sampled.append(1))
    result = mnemon("import", "out/embeddings/tom.safetensors", *LIB, "--name", "rex")
    assert result.code == 1 and "CLIP cannot be fetched" in result.err and not sampled
    assert Library.open("lib").names() == ["sip", "tom"]
