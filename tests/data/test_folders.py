"""Folders as people have them: what is read, and what is passed over and said."""

import json
import logging
import shutil

import numpy as np
import pytest

from mnemon.data import concept_from_folder, concepts_from_list
from mnemon.errors import MnemonError
from tests.data.images import BLUE, GREEN, RED, save_image

CAPTION = "a photo of <rex> beside a red car"


@pytest.fixture
def folder(tmp_path):
    save_image(tmp_path / "rex" / "a.jpg", RED)
    save_image(tmp_path / "rex" / "b.png", GREEN)
    return tmp_path / "rex"


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


def names(concept):
    return [photo.source.rpartition("/")[2] for photo in concept.photos]


# What is passed over


def test_a_folder_of_folders_says_which_may_be_meant(tmp_path):
    (tmp_path / "rex" / "empty").mkdir(parents=True)
    save_image(tmp_path / "rex" / "img" / "10_rex dog" / "a.jpg")
    with pytest.raises(MnemonError, match=r"holds no images, only empty/, img/: .* such as '.*rex/img'\.$"):
        concept_from_folder(tmp_path / "rex")


def test_everything_else_in_a_folder_is_passed_over_and_said_once(folder, caplog):
    for hidden in (".DS_Store", "._a.jpg", "Thumbs.db"):
        (folder / hidden).touch()
    save_image(folder / "more" / "c.png")
    for index in range(7):
        (folder / f"clip{index}.mov").touch()
    write(folder / "z.txt", "a photo of <rex>")
    with caplog.at_level(logging.INFO, "mnemon"):
        concept = concept_from_folder(folder)
    report = concept.report.to_json()
    assert report["passed_over"] == {
        "caption without a photo": ["z.txt"],
        "hidden": [".DS_Store", "._a.jpg", "Thumbs.db"],
        "no photo by its suffix": [f"clip{index}.mov" for index in range(7)],
        "folder": ["more/"],
    }
    assert (report["photos"], report["captions"]) == (2, 0)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "clip4.mov and 2 more (7)" in record.getMessage()


def test_a_plain_folder_is_no_warning(folder, caplog):
    with caplog.at_level(logging.INFO, "mnemon"):
        concept_from_folder(folder)
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("INFO", f"{folder}: 2 photos, 0 captions.")
    ]


def test_heic_without_its_extra_is_passed_over_with_how_to_get_it(folder, monkeypatch):
    monkeypatch.setattr("mnemon.data.reading.find_spec", lambda name: None)
    (folder / "IMG_1.HEIC").touch()
    ((reason, files),) = concept_from_folder(folder).report.passed_over.items()
    assert "pip install 'mnemon[heic]'" in reason and files == ["IMG_1.HEIC"]
    for file in ("a.jpg", "b.png"):
        (folder / file).unlink()
    with pytest.raises(MnemonError, match=r"only IMG_1.HEIC: .*pip install 'mnemon\[heic\]'"):
        concept_from_folder(folder)


def test_what_is_odd_about_a_photo_is_said_with_its_name(folder):
    save_image(folder / "c.png").rename(folder / "c.gif")
    frame = save_image(folder / "d.png", BLUE)
    shutil.copy(frame, folder / "e.png")
    save_image(folder / "f.png", (1, 2, 3))
    from PIL import Image

    Image.new("RGB", (4, 4)).save(folder / "g.png", icc_profile=b"nothing")
    assert concept_from_folder(folder).report.notes == [
        "g.png: the colour profile is damaged or of another kind, its colours are taken for sRGB.",
        "copies, trained on again but scored against once: e.png (of d.png) (1).",
    ]


def test_copies_count_once_where_photos_are_compared(folder):
    shutil.copy(folder / "a.jpg", folder / "c.jpg")
    shutil.copy(folder / "a.jpg", folder / "d.png")
    concept = concept_from_folder(folder)
    assert names(concept) == ["a.jpg", "b.png", "c.jpg", "d.png"] and names(concept.distinct()) == ["a.jpg", "b.png"]


# Captions


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.caption", CAPTION),
        ("a.TXT", CAPTION),
        ("a.Caption", CAPTION),
        ("a.jpg.txt", CAPTION),
        ("a.jpg.caption", CAPTION),
        ("a.json", {"caption": CAPTION}),
        ("a.JSON", {"text": CAPTION, "rating": 5}),
        ("a.jpg.json", {"tags": ["a photo of <rex> beside a red car"]}),
        ("a.txt", "a photo of [trigger] beside a red car"),
        ("a.txt", "a photo of [Trigger]\nbeside a red car\n"),
        ("a.txt", "\N{ZERO WIDTH NO-BREAK SPACE}a photo of <REX> beside a red car"),
        ("metadata.csv", f"file_name,text\na.jpg,{CAPTION}\n"),
        ("metadata.csv", f'caption,file_name\r\n"{CAPTION}",./a.jpg\r\n'),
        ("metadata.csv", f"image,prompt\na.jpg,{CAPTION}\n"),
        ("metadata.jsonl", {"file_name": "a.jpg", "text": CAPTION}),
        ("metadata.jsonl", {"file_name": "a.jpg", "caption": CAPTION}),
    ],
)
def test_captions_are_read_as_other_tools_write_them(folder, name, text):
    write(folder / name, text)
    concept = concept_from_folder(folder)
    assert concept.photos[0].caption == CAPTION and concept.report.captions == 1
    assert folder.name in concept.photos[0].caption_source


def test_tags_are_one_caption(folder):
    write(folder / "a.json", {"tags": ["<rex>", "red car", "sunny"]})
    assert concept_from_folder(folder).photos[0].caption == "<rex>, red car, sunny"


def test_a_mask_that_two_photos_share_is_said(folder):
    save_image(folder / "a.png", BLUE)
    save_image(folder / "a-masklabel.png", (255, 255, 255))
    assert concept_from_folder(folder).report.notes == [
        "a-masklabel.png is the mask of a.jpg and of a.png, which share a name."
    ]


@pytest.mark.parametrize("other", ["a.caption", "a.TXT", "a.jpg.txt", "a.json"])
def test_two_captions_of_one_photo_must_agree(folder, other):
    write(folder / "a.txt", CAPTION)
    said = f"{CAPTION} at night"
    write(folder / other, {"text": said} if other.endswith("json") else said)
    with pytest.raises(MnemonError, match=r"a\.jpg' has different captions in .* and .*: keep one"):
        concept_from_folder(folder)
    write(folder / other, {"text": CAPTION} if other.endswith("json") else f" {CAPTION}\n")
    assert concept_from_folder(folder).photos[0].caption == CAPTION


@pytest.mark.parametrize("caption", ["a.txt", "a.json"])
def test_a_caption_that_two_photos_share_is_said(folder, caption):
    write(folder / caption, CAPTION if caption == "a.txt" else {"text": CAPTION})
    (folder / "a.png").write_bytes((folder / "a.jpg").read_bytes())
    concept = concept_from_folder(folder)
    assert [photo.caption for photo in concept.photos][:2] == [CAPTION] * 2
    assert f"{caption} is the caption of a.png too, not of a.jpg alone." in str(concept.report.to_json())


def test_of_several_captions_in_one_file_the_first_is_said(folder):
    write(folder / "a.json", {"tags": ["<rex>"], "caption": CAPTION})
    concept = concept_from_folder(folder)
    assert concept.photos[0].caption == CAPTION
    assert concept.report.notes == ["a.json: of its captions 'caption' is used, not tags."]


@pytest.mark.parametrize("value", [{"rating": 5}, ["<rex>"], "<rex>", {"caption": None}])
def test_json_without_a_caption_is_passed_over(folder, value):
    write(folder / "a.json", json.dumps(value))
    concept = concept_from_folder(folder)
    assert concept.photos[0].caption is None
    assert concept.report.passed_over == {"JSON without caption, text, prompt or tags": ["a.json"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a\.txt' does not name the concept.*It is empty"),
        ("a.caption", " \n", r"a\.caption' does not name the concept.*It is empty"),
        ("a.txt", "a photo of rex", r"a\.txt' does not name the concept: write <rex> or \[trigger\]"),
        ("a.json", "{", r"a\.json' is no JSON \(line 1"),
        ("metadata.csv", "file_name,text\na.jpg,<rex>, a red car\n", r"line 2 of .*more fields.*in quotes"),
        ("metadata.csv", "name,text\na.jpg,<rex>\n", "columns of .* are .'name', 'text'., and none is file_name: the"),
        ("metadata.csv", "file_name,words\na.jpg,<rex>\n", "and none is text"),
        ("metadata.csv", "file_name;text\na.jpg;<rex>\n", "columns of .* are .'file_name;text'.* separated by a comma"),
        ("metadata.csv", "file_name\ttext\na.jpg\t<rex>\n", "separated by a comma"),
        ("metadata.csv", "", "metadata.csv' names no photos: add a line for each, or delete it"),
        ("metadata.csv", "file_name,text\n", "names no photos"),
        ("metadata.jsonl", "\n\n", "metadata.jsonl' names no photos"),
        ("metadata.csv", "file_name,text\na.jpg\n", "Malformed metadata in line 2"),
        ("metadata.csv", "file_name,text\nz.jpg,<rex>\n", r"no photo '.*z\.jpg', which line 2 of"),
        ("metadata.csv", "file_name,text\n../a.jpg,<rex>\n", "leaves the folder"),
    ],
)
def test_a_caption_that_cannot_be_used_is_refused_with_its_file(folder, name, text, message):
    write(folder / name, text)
    with pytest.raises(MnemonError, match=message):
        concept_from_folder(folder)


def test_metadata_say_what_they_leave_out(folder):
    save_image(folder / "sub" / "c.png", BLUE)
    save_image(folder / "sub" / "d.png", (9, 9, 9))
    lines = [{"file_name": name, "text": CAPTION, "width": 3} for name in ("a.jpg", "sub/c.png")]
    write(folder / "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    write(folder / "metadata.csv", "file_name,text\n")
    write(folder / "a.txt", "a photo of <rex> at night")
    save_image(folder / "other" / "e.png")
    concept = concept_from_folder(folder)
    assert names(concept) == ["a.jpg", "c.png"]
    assert concept.report.passed_over == {
        "captions are in metadata.jsonl": ["metadata.csv", "a.txt"],
        "not named by metadata.jsonl": ["b.png", "sub/d.png"],
        "folder": ["other/"],
    }
    assert concept.report.notes == ["metadata.jsonl: fields that are not used: width."]


def test_a_line_of_metadata_ends_where_json_says(folder):
    caption = f"{CAPTION}\N{LINE SEPARATOR}at night"
    write(folder / "metadata.jsonl", json.dumps({"file_name": "a.jpg", "text": caption}, ensure_ascii=False))
    assert concept_from_folder(folder).photos[0].caption == f"{CAPTION} at night"


def test_metadata_one_folder_up_are_noticed(folder):
    write(folder.parent / "metadata.jsonl", {"file_name": "rex/a.jpg", "text": CAPTION})
    (note,) = concept_from_folder(folder).report.notes
    assert "metadata.jsonl' names photos of this folder and is not read: give" in note
    above = concept_from_folder(folder.parent, "rex")
    assert names(above) == ["a.jpg"] and above.photos[0].caption == CAPTION


# Masks


def test_masks_that_are_there_are_said_though_nothing_else_is(folder, caplog):
    save_image(folder / "a-masklabel.png", (250, 250, 250))
    concept_from_folder(folder)
    assert "1 mask (used with --masked-loss only)" in caplog.text


def test_masks_are_no_photos(folder):
    for mask in ("a-masklabel.png", "b_mask.png", "c-masklabel.png", "A-condlabel.PNG"):
        save_image(folder / mask, (255, 255, 255))
    save_image(folder / "gas_mask.png", BLUE)  # a photo: there is no 'gas'
    save_image(folder / "masks" / "a.png", (250, 250, 250))
    save_image(folder / "masks" / "gas_mask.png", (240, 240, 240))
    concept = concept_from_folder(folder)
    assert names(concept) == ["a.jpg", "b.png", "gas_mask.png"]
    assert [photo.mask.path.name for photo in concept.photos] == ["a-masklabel.png", "b_mask.png", "gas_mask.png"]
    assert "3 masks (used with --masked-loss only)" in str(concept.report)
    assert concept.report.passed_over == {
        "image for conditioning": ["A-condlabel.PNG"],
        "mask without a photo": ["c-masklabel.png"],
        "second mask of a photo": ["masks/a.png"],
    }


def test_photos_that_metadata_name_have_masks_too(folder):
    write(folder / "metadata.jsonl", {"file_name": "a.jpg", "text": CAPTION})
    save_image(folder / "mask" / "a.png", (255, 255, 255))
    assert concept_from_folder(folder).photos[0].mask.path.name == "a.png"


def test_a_damaged_mask_is_in_the_way_only_when_it_is_used(folder):
    (folder / "a-masklabel.png").write_bytes(b"nothing")
    photo = concept_from_folder(folder).photos[0]
    with pytest.raises(MnemonError, match=r"a-masklabel\.png' is no readable"):
        photo.mask()


# kohya's folders


def test_folders_of_kohya_give_repeats_and_words(tmp_path):
    save_image(tmp_path / "20_ohwx man" / "a.png", RED)
    write(tmp_path / "20_ohwx man" / "a.txt", "a photo of ohwx man in the snow")
    save_image(tmp_path / "5_ohwx man" / "b.png", GREEN)
    (tmp_path / "log").mkdir()
    concept = concept_from_folder(tmp_path)
    assert (concept.name, concept.class_noun, names(concept)) == ("ohwx", "man", ["a.png", "b.png"])
    assert [photo.repeats for photo in concept.photos] == [4, 1]
    assert [photo.caption for photo in concept.photos] == ["a photo of <ohwx> man in the snow", None]
    assert concept.report.passed_over == {"folder": ["log/"]}
    assert concept.report.notes == ["the folder's name says: trigger word 'ohwx', class noun 'man'."]


@pytest.mark.parametrize(
    ("inner", "name", "noun", "caption"),
    [
        ("10_rex dog", None, None, "<rex> dog"),
        ("10_rex", None, None, "<rex> dog"),
        ("3_Rex guide dog", None, None, "<rex> dog"),
        ("10_rex dog", "max", "puppy", "<max> dog"),
    ],
)
def test_one_folder_of_kohya_may_be_given_itself(tmp_path, inner, name, noun, caption):
    save_image(tmp_path / inner / "a.png")
    write(tmp_path / inner / "a.txt", "rex dog")
    concept = concept_from_folder(tmp_path / inner, name, noun)
    assert (concept.name, concept.photos[0].caption, concept.photos[0].repeats) == (name or "rex", caption, 1)
    assert concept.class_noun == (noun or inner.partition(" ")[2] or None)


def test_folders_of_several_concepts_are_refused(tmp_path):
    save_image(tmp_path / "10_rex dog" / "a.png")
    save_image(tmp_path / "5_rex puppy" / "a.png", BLUE)
    with pytest.raises(MnemonError, match=r"several classes \(dog, puppy\): give the class noun"):
        concept_from_folder(tmp_path)
    assert len(concept_from_folder(tmp_path, class_noun="dog").photos) == 2
    save_image(tmp_path / "1_dog" / "b.png")
    with pytest.raises(MnemonError, match=r"several concepts \(rex, dog\): learn each from its own"):
        concept_from_folder(tmp_path)


def test_a_word_of_a_plain_folder_is_no_trigger(folder):
    write(folder / "a.txt", "rex at night")
    with pytest.raises(MnemonError, match="does not name the concept"):
        concept_from_folder(folder)


# List files


def test_a_list_file_says_what_it_does_not_use(folder, caplog):
    entry = {"instance_prompt": "a photo of sks dog", "class_data_dir": "classes", "instance_data_dir": "rex"}
    write(folder.parent / "list.json", [entry])
    (concept,) = concepts_from_list(folder.parent / "list.json")
    first, second = concept.report.notes
    assert "entry 1 of" in first and "class_data_dir is not read" in first
    assert "instance_prompt has no <rex> and is not used" in second
    assert len(caplog.records) == 1 and second in caplog.text


def test_a_list_file_names_its_prompt_as_the_source_of_captions(folder):
    write(folder.parent / "list.json", [{"instance_prompt": "a <rex> dog", "instance_data_dir": "rex"}])
    (concept,) = concepts_from_list(folder.parent / "list.json")
    assert "the instance_prompt of entry 1" in concept.photos[0].caption_source
    assert np.unique([photo.caption for photo in concept.photos]).tolist() == ["a <rex> dog"]


def test_progress_counts_the_photos(folder):
    seen = []
    concept_from_folder(folder, on_photo=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
