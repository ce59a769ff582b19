from pathlib import Path
from typing import Any

import pytest

from mnemon.errors import MnemonError
from mnemon.sampling import read_metadata
from mnemon.web import drawing, exchange, forgetting, timeline
from mnemon.web.drawing import Wish, region_texts, wish_of
from mnemon.web.workspace import Workspace

LEFT, RIGHT = {"box": [0, 0, 0.5, 1], "prompt": "<sip>"}, {"box": [0.5, 0, 1, 1], "prompt": "<tom>"}


def test_images_come_one_by_one_with_their_regions(known: Workspace) -> None:
    wish = Wish("two things", number=2, steps=1, regions=region_texts([LEFT, RIGHT]), seed=7)
    files = []
    for file in drawing.draw(known, wish):
        assert file.exists()  # it can be shown at once
        files.append(file)
    assert [read_metadata(file).seed for file in files] == [7, 8]
    assert read_metadata(files[0]).regions == ("0,0,0.5,1:a photo of <sip> mug", "0.5,0,1,1:a photo of <tom> cat")
    assert [file for file, _ in drawing.gallery(known)] == files[::-1]
    again = wish_of(read_metadata(files[0]))
    assert (again.prompt, again.seed, again.steps, len(again.regions)) == ("two things", 7, 1, 2)
    assert known.doing == ""


def test_whoever_stops_asking_stops_the_drawing(known: Workspace) -> None:
    images = drawing.draw(known, Wish("a mug", number=64, steps=1))
    next(images)
    images.close()
    for _ in range(2000):
        if not known.doing:
            break
        import time

        time.sleep(0.01)
    assert not known.doing and len(drawing.gallery(known)) < 64


def test_an_error_of_the_drawing_arrives_and_frees_the_model(known: Workspace) -> None:
    with pytest.raises(MnemonError, match="rx"):
        list(drawing.draw(known, Wish("a photo of <rx>", steps=1)))
    assert known.doing == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"number": 0}, "choose 1 to 64"),
        ({"number": 10**6}, "choose 1 to 64"),
        ({"steps": 5000}, "choose 1 to 1000"),
        ({"seed": -1}, "seed"),
        ({"prompt": "x" * 3000}, "characters"),
    ],
)
def test_a_wish_out_of_bounds_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(MnemonError, match=said):
        Wish(**{"prompt": "a mug", **wrong})


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ({"box": [0, 0, 0.5], "prompt": "<sip>"}, "corner|prompt|neither"),
        ({"box": [0.5, 0, 0.5, 1], "prompt": "<sip>"}, "not inside"),
        ({"box": ["a", 0, 1, 1], "prompt": "<sip>"}, "no box"),
        ({"box": [float("nan"), 0, 1, 1], "prompt": "<sip>"}, "not inside|no box"),
        ({"prompt": "<sip>"}, "no box"),
        ({"box": [0, 0, 1, 1], "prompt": " "}, "no concept yet"),
    ],
)
def test_a_region_that_is_none_is_refused(box: dict[str, Any], said: str) -> None:
    with pytest.raises(MnemonError, match=said):
        region_texts([box])


def test_a_region_is_never_read_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(MnemonError, match="no box"):
        region_texts([{"box": ["/etc/passwd"], "prompt": "x"}])


def test_the_timeline_draws_each_revision_once(known: Workspace) -> None:
    assert timeline.missing(known) == [1, 2]
    assert list(timeline.draw_missing(known)) == [1, 2]
    assert timeline.missing(known) == [] and list(timeline.draw_missing(known)) == []
    assert any("<tom> more" in line for line in timeline.comparison(known, 1, 2))
    assert timeline.remove(known, "sip").endswith("Revision 2 still has it.")
    assert timeline.missing(known) == [3] and known.called() == {"tom": "<tom> cat"}
    assert any("lacks <sip>" in line for line in timeline.comparison(known, 2, 3))
    entry = timeline.revisions(known)[0]
    assert forgetting.images_of(known, 1, "sip")[0][0] == timeline.image_of(known, entry, "sip")
    assert "Nothing was scored" in forgetting.words(known)


def test_an_export_is_one_archive_and_comes_back(known: Workspace, world_folder: Path, tmp_path: Path) -> None:
    archive, said = exchange.take_along(known, ["sip"], "kohya")
    assert archive.suffix == ".zip" and archive.exists() and "<sip>" in said
    assert not archive.with_suffix("").exists()
    for names, kind in ((["nobody"], "kohya"), ([], "../x")):
        with pytest.raises(MnemonError):
            exchange.take_along(known, names, kind)
    import shutil

    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (file,) = [file for file in (tmp_path / "unpacked").rglob("*.safetensors") if "sip" not in file.stem] or [
        next((tmp_path / "unpacked").rglob("*.safetensors"))
    ]
    other = Workspace(tmp_path / "other", str(world_folder), "lora")
    assert "<back>" in exchange.bring_in(other, [file], "back", "mug", "sks")
    assert other.called() == {"back": "<back> mug"}


@pytest.mark.parametrize(
    ("family", "first"), [("sd", "kohya"), ("sdxl", "kohya"), ("flux", "comfy"), ("z-image", "comfy")]
)
def test_the_export_that_most_people_want_comes_first(family: str, first: str) -> None:
    forms = exchange.forms_of(family)
    assert forms[0] == first and sorted(forms) == sorted(exchange.FORMS)
