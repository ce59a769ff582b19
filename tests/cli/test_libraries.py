import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import mnemon as mnemon_package
from mnemon.api import generating
from mnemon.api.opening import opened_or_created
from mnemon.library import Library
from mnemon.methods import METHODS
from mnemon.sampling.images import read_metadata
from tests.cli.conftest import Command

LIB = ("--library", "lib")
FEW = ("--steps", 1, "--number", 1)


def test_images_say_how_they_were_made(mnemon: Command, taught: Path) -> None:
    prompts = ("a photo of <sip> mug", "<tom> cat in the snow")
    result = mnemon("generate", *prompts, *LIB, "--steps", 2, "-n", 2, "--seed", 5, "--negative", "night")
    assert result.code == 0 and "pictures/00000.png to pictures/00003.png" in result.out
    facts = [read_metadata(Path("pictures") / f"{index:05d}.png") for index in range(4)]
    assert [fact.prompt for fact in facts] == [prompts[0]] * 2 + [prompts[1]] * 2
    assert [fact.seed for fact in facts] == [5, 6, 5, 6]
    assert {(fact.num_inference_steps, fact.negative_prompt, fact.revision, fact.library) for fact in facts} == {
        (2, "night", 2, "lib")
    }
    assert facts[0].concepts == ("sip", "tom")


def test_numbering_goes_on_and_json_lists_the_new_files(mnemon: Command, taught: Path) -> None:
    first = mnemon("generate", "<sip>", *LIB, *FEW, "--out", "out", "--json").json
    second = mnemon("generate", "<sip>", *LIB, *FEW, "--out", "out", "--json").json
    assert (first, second) == (["out/00000.png"], ["out/00001.png"])
    assert Path(first[0]).read_bytes() == Path(second[0]).read_bytes()


def test_images_are_saved_as_they_are_drawn(mnemon: Command, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = generating.save_image

    def stop_at_the_third(path: Path, *more: object) -> None:
        if path.name == "00002.png":
            raise KeyboardInterrupt
        save(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(generating, "save_image", stop_at_the_third)
    result = mnemon("generate", "<sip>", *LIB, "--steps", 1, "-n", 4, "--batch", 2)
    assert result.code == 130 and len(list(Path("pictures").iterdir())) == 2
    assert "2 of 4 images are saved (pictures/00000.png to pictures/00001.png)" in result.err


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_drawn(
    mnemon: Command, taught: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    Path("file").touch()
    monkeypatch.setattr(generating, "compose_library", lambda *_: pytest.fail("drawn for nothing"))
    result = mnemon("generate", "<sip>", *LIB, *FEW, "--out", out)
    assert result.code == 1 and out in result.err and "could not be written" in result.err


def test_batches_change_nothing_but_when_an_image_is_there(taught: Path) -> None:
    told: list[tuple[int, int]] = []
    at_once = generating.generate("lib", "<sip>", num_images_per_prompt=3, num_inference_steps=2)
    in_turn = generating.generate(
        "lib", "<sip>", num_images_per_prompt=3, num_inference_steps=2, batch_size=2,
        on_step=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (at_once - in_turn).abs().max() < 1e-3


def test_an_unknown_concept_is_answered_with_the_known_ones(mnemon: Command, taught: Path) -> None:
    result = mnemon("generate", "a photo of <rex> dog", *LIB, *FEW)
    assert result.code == 1 and all(token in result.err for token in ("<rex>", "<sip>", "<tom>"))
    assert not Path("pictures").exists()


def test_a_past_state_knows_what_it_knew(mnemon: Command, taught: Path) -> None:
    assert mnemon("generate", "<sip>", *LIB, *FEW, "--at", 1).code == 0
    assert read_metadata(Path("pictures/00000.png")).revision == 1
    assert mnemon("generate", "<tom>", *LIB, *FEW, "--at", 1).code == 1
    assert [one["name"] for one in mnemon("list", *LIB, "--at", 1, "--json").json] == ["sip"]
    gone = mnemon("list", *LIB, "--at", 7)
    assert gone.code == 1 and "revisions are 0 to 2" in gone.err


def test_the_bare_base_draws_too(mnemon: Command, world_folder: Path) -> None:
    assert mnemon("generate", "a red mug", "--base", world_folder, *FEW).code == 0
    assert read_metadata(Path("pictures/00000.png")).library is None


def test_list(mnemon: Command, taught: Path) -> None:
    concepts = mnemon("list", *LIB, "--json").json
    assert [(one["name"], one["noun"], one["state"], one["photos"]) for one in concepts] == [
        ("sip", "mug", 1, 3),
        ("tom", "cat", 2, 3),
    ]
    assert all(one["bytes"] > 0 for one in concepts)
    shown = mnemon("list", *LIB).out
    assert "method 'lora'" in shown and "revision 2" in shown and "tom" in shown


def test_show_the_history(mnemon: Command, taught: Path) -> None:
    value = mnemon("show", *LIB, "--json").json
    assert [(e["state"], e["action"], e["concept"]) for e in value["history"]] == [
        (1, "learn", "sip"),
        (2, "learn", "tom"),
    ]
    assert value["rows"].keys() == {"1", "2"} and value["method"] == "lora"
    shown = mnemon("show", *LIB).out
    assert "text alignment of general prompts" in shown and max(map(len, shown.splitlines())) <= 80


def test_show_one_concept(mnemon: Command, taught: Path) -> None:
    value = mnemon("show", "sip", *LIB, "--json").json
    assert value["scores"].keys() == {"1", "2"} and len(value["photos"]) == 3
    assert value["settings"]["held_out"] is False
    assert "<sip> mug: learned" in mnemon("show", "sip", *LIB).out
    unknown = mnemon("show", "rex", *LIB)
    assert unknown.code == 1 and "sip, tom" in unknown.err


def test_show_what_the_method_noted(mnemon: Command, taught: Path) -> None:
    library = Library.open(taught)
    facts = {"mask_density": 0.0632, "shared_with": {"sip": 0.25, "tom": 0.125}}
    library.commit(replace(library.learned()[0], name="rex", facts=facts))
    shown = mnemon("show", "rex", *LIB).out
    assert "mask density: 0.063\n" in shown and "shared with: sip 0.250, tom 0.125\n" in shown


def test_remove(mnemon: Command, taught: Path) -> None:
    assert mnemon("remove", "sip", *LIB, "--json").json == {"removed": "sip", "state": 3}
    assert [one["name"] for one in mnemon("list", *LIB, "--json").json] == ["tom"]
    assert [one["name"] for one in mnemon("list", *LIB, "--at", 2, "--json").json] == ["sip", "tom"]
    again = mnemon("remove", "sip", *LIB)
    assert again.code == 1 and "it has: tom" in again.err
    assert "revision 4" in mnemon("remove", "tom", *LIB).out


def test_evaluate_measures_what_is_missing(mnemon: Command, taught: Path) -> None:
    (taught / "scores" / "000001.json").unlink()
    kept = (taught / "scores" / "000002.json").read_bytes()
    value = mnemon("evaluate", *LIB, "--out", "report", "--json").json
    assert value["rows"].keys() == {"1", "2"} and value["page"] == "report/report.html"
    assert value["figures"].keys() >= {"final_average", "learning_accuracy", "retention"}
    assert (taught / "scores" / "000002.json").read_bytes() == kept
    assert {file.name for file in Path("report").iterdir()} == {
        "report.html",
        *(f"{kind}-{plot}.png" for kind in ("identity", "image", "text") for plot in ("matrix", "curves")),
    }
    shown = mnemon("evaluate", *LIB, "--again").out
    assert "retention" in shown and "evaluation/report.html" in shown
    assert (taught / "scores" / "000002.json").read_bytes() != kept  # of two steps now, not of one


def test_evaluate_has_nothing_to_say_of_an_emptied_library(mnemon: Command, taught: Path) -> None:
    for name in ("sip", "tom"):
        mnemon("remove", name, *LIB)
    assert mnemon("evaluate", *LIB).code == 0


def test_methods_of_which_one_is_that_of_a_new_library(mnemon: Command, world_folder: Path) -> None:
    value = mnemon("methods", "--json").json
    assert [one["name"] for one in value] == list(METHODS)
    keys = {"name", "trains", "stores", "fuses", "order_free", "can_remove", "source", "default"}
    assert all(one.keys() == keys for one in value)
    with opened_or_created(Path("new"), str(world_folder), None) as (library, _):
        assert [one["name"] for one in value if one["default"]] == [library.method.name]
    shown = mnemon("methods").out
    assert "can remove: yes" in shown and max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", ["list", "show", "evaluate", "generate", "remove"])
def test_there_is_no_library(mnemon: Command, command: str) -> None:
    more = {"generate": ["a mug"], "remove": ["rex"]}.get(command, [])
    result = mnemon(command, *more, "--json")
    assert result.code == 1 and "mnemon learn" in result.err and result.out == ""


def test_a_damaged_file_is_named(mnemon: Command, taught: Path) -> None:
    (taught / "concepts" / "000001-sip" / "deltas.safetensors").write_bytes(b"")
    assert "sip" in mnemon("list", *LIB).out and "mnemon check" in mnemon("list", *LIB).err
    checked = mnemon("check", *LIB)
    assert checked.code == 1 and "000001-sip/deltas.safetensors" in checked.out and "<sip>" in checked.out
    drawn = mnemon("generate", "a <sip> mug", *LIB)
    assert drawn.code == 1 and "000001-sip/deltas.safetensors" in drawn.err


def test_a_whole_library_is_said_to_be_whole(mnemon: Command, taught: Path) -> None:
    checked = mnemon("check", *LIB)
    assert checked.code == 0 and "whole" in checked.out and checked.err == ""
    assert mnemon("check", *LIB, "--json").json == []


def test_looking_and_removing_do_not_wait_for_torch(taught: Path) -> None:
    commands = [["list"], ["show"], ["show", "sip"], ["remove", "sip"]]
    code = (
        "import sys; from mnemon.cli import app\n"
        f"for command in {commands}: app([*command, *{list(LIB)}], standalone_mode=False)\n"
        "sys.exit(' '.join({'torch', 'numpy', 'PIL'} & sys.modules.keys()) or 0)"
    )
    paths = {**os.environ, "PYTHONPATH": str(Path(mnemon_package.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_library_moves_with_its_base_in_place(mnemon: Command, taught: Path, world_folder: Path) -> None:
    assert Library.open(taught).base_name == str(world_folder)  # a whole path, from wherever it was given
    assert json.loads((taught / "library.json").read_text())["base"]["name"] == str(world_folder)


@pytest.mark.usefixtures("quick_plots")
def test_a_base_that_has_moved_is_found_where_it_lies_now(
    mnemon: Command, taught: Path, world_folder: Path, tmp_path: Path
) -> None:
    moved = world_folder.rename(tmp_path / "moved")
    try:
        lost = mnemon("generate", "<sip>", "--steps", 1, *LIB)
        assert lost.code == 1 and str(world_folder) in lost.err
        assert mnemon("generate", "<sip>", "--number", 1, "--steps", 1, "--base-at", moved, *LIB).code == 0
        assert mnemon("evaluate", "--base-at", moved, *LIB).code == 0
    finally:
        moved.rename(world_folder)


def test_regions_say_what_is_heard_where(mnemon: Command, taught: Path, tmp_path: Path) -> None:
    drawn = mnemon(
        "generate", "two things on the beach", "--region", "0,0,0.5,1:<sip>", "--region", "0.5,0,1,1:a red cat",
        "--number", 1, "--steps", 1, "--json", *LIB,
    )  # fmt: skip
    facts = read_metadata(Path(drawn.json[0]))
    assert facts.regions == ("0,0,0.5,1:a photo of <sip> mug on the beach", "0.5,0,1,1:a red cat")
    spread = mnemon("generate", "<sip> mug in snow", "--auto", "--apart", "--steps", 1, "--json", *LIB)
    facts = read_metadata(Path(spread.json[0]))
    assert (
        facts.per_region
        and facts.prompt == "mug in snow"
        and facts.regions == ("0,0,1,1:a photo of <sip> mug in snow",)
    )
    for wrong, said in (
        (["--region", "0,0,2,1:<sip>"], "not inside the image"),
        (["--region", "0,0,1,1:<rex>"], "<rex>"),
        (["--region", "0,0,1,1:<sip>", "--auto"], "--auto"),
        (["--apart"], "give regions, or use auto_layout"),
    ):
        result = mnemon("generate", "a mug", "--steps", 1, *wrong, *LIB)
        assert result.code == 1 and said in result.err
