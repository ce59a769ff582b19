import shutil
from pathlib import Path

import pytest

from mnemon.data import concept_from_folder
from mnemon.errors import MnemonError
from mnemon.web.uploads import MOST, Dropped, keep, look_at, summary
from tests.web.conftest import photo


def test_a_photo_in_four_is_held_out_and_the_rest_is_learned_from(photos: list[Path]) -> None:
    assert [one.use for one in look_at(photos, 64)] == ["train", "train", "train", "hold out", "train"]
    assert {one.use for one in look_at(photos[:3], 64)} == {"train"}  # too few to spare one


def test_what_cannot_be_used_is_passed_over_with_its_reason(photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "dropped" / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:4000])
    text = tmp_path / "dropped" / "text.png"
    text.write_text("no photo")
    twice = shutil.copy(photos[0], tmp_path / "dropped" / "twice.png")
    small = photo(tmp_path / "dropped" / "small.png", 8, (30, 90))
    dropped = {one.name: one for one in look_at([*photos, broken, text, Path(twice), small], 64)}
    assert "damaged" in str(dropped["broken.jpg"].refused) and str(tmp_path) not in str(dropped["broken.jpg"].refused)
    assert dropped["text.png"].refused and dropped["text.png"].use == "leave out"
    assert dropped["twice.png"].hints == ("a copy of 0.png",) and dropped["twice.png"].use == "leave out"
    assert any("small" in hint for hint in dropped["small.png"].hints)
    assert any("narrow" in hint for hint in dropped["small.png"].hints)
    assert "3 passed over" in summary(list(dropped.values()))


def test_the_same_file_dropped_twice_counts_once(photos: list[Path]) -> None:
    assert [one.use for one in look_at([photos[0], photos[0]], 64)] == ["train", "leave out"]


def test_what_is_kept_is_read_as_the_command_reads_a_folder(photos: list[Path], tmp_path: Path) -> None:
    dropped = look_at(photos, 64)
    train, held_out = keep(tmp_path / "kept", "rex", dropped, {photos[0]: "a photo of <rex> asleep", photos[1]: "  "})
    concept = concept_from_folder(train, "rex")
    assert [one.caption for one in concept.photos] == ["a photo of <rex> asleep", None, None, None]
    assert held_out is not None and len(concept_from_folder(held_out, "rex").photos) == 1
    again, nothing = keep(tmp_path / "kept", "rex", dropped[:1], {})  # a second try replaces the first
    assert len(concept_from_folder(again, "rex").photos) == 1 and nothing is None


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x.png", "..\\..\\x.png", ".hidden.png", "a\nb.png", "<img src=x>.png"]
)
def test_a_file_name_never_leaves_the_folder(photos: list[Path], tmp_path: Path, name: str) -> None:
    train, _ = keep(tmp_path / "kept", "rex", [Dropped(photos[0], name)], {})
    (file,) = train.iterdir()
    assert file.parent == train and set(file.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.ixmg")


@pytest.mark.parametrize("name", ["../rex", "Rex", "", "<b>", "a/b", "rex\0", "x" * 41])
def test_a_name_that_is_none_is_refused_before_anything_is_written(
    photos: list[Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(MnemonError, match="cannot name a concept"):
        keep(tmp_path / "kept", name, look_at(photos, 64), {})
    assert not (tmp_path / "kept").exists()


def test_nothing_to_learn_from_is_said(photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MnemonError, match="no photo to learn from"):
        keep(tmp_path, "rex", [Dropped(photos[0], "a.png", "hold out")], {})
    with pytest.raises(MnemonError, match="too many"):
        look_at([photos[0]] * (MOST + 1), 64)
