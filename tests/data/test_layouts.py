import json

import numpy as np
import pytest

from mnemon.data import Concept, concept_from_folder, concept_from_imagefolder
from mnemon.errors import MnemonError
from tests.data.images import BLUE, GREEN, RED, photo, save_image


@pytest.fixture
def folder(tmp_path):
    save_image(tmp_path / "rex" / "b.png", GREEN)
    save_image(tmp_path / "rex" / "a.png", RED)
    return tmp_path / "rex"


def write_metadata(folder, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_folder_is_a_concept_under_its_own_name(folder):
    concept = concept_from_folder(folder)
    assert (concept.name, concept.token, concept.class_noun) == ("rex", "<rex>", None)
    assert [photo.image.getpixel((0, 0)) for photo in concept.photos] == [RED, GREEN]  # sorted by file name
    assert [photo.caption for photo in concept.photos] == [None, None]


def test_name_and_noun_are_the_persons(folder):
    concept = concept_from_folder(str(folder), "my-dog", "stuffed animal")
    assert (concept.name, concept.class_noun) == ("my-dog", "stuffed animal")


def test_only_images_directly_in_the_folder_count(folder):
    save_image(folder / "more" / "c.png")
    save_image(folder / ".hidden.png")
    (folder / "odd.png").mkdir()
    (folder / "notes.md").write_text("about rex")
    assert len(concept_from_folder(folder).photos) == 2


def test_a_text_of_the_same_stem_is_the_caption(folder):
    (folder / "a.txt").write_text("a photo of <rex>\n  in the snow \n", encoding="utf-8")
    assert [photo.caption for photo in concept_from_folder(folder).photos] == ["a photo of <rex> in the snow", None]


@pytest.mark.parametrize("text", ["a photo of a dog", "a photo of rex", "a photo of <max>", ""])
def test_a_caption_without_the_token_is_refused(folder, text):
    (folder / "a.txt").write_text(text)
    with pytest.raises(MnemonError, match=r"'.*a\.txt' does not name the concept: write <rex>"):
        concept_from_folder(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(MnemonError, match="There is no folder '.*rax'"):
        concept_from_folder(tmp_path / "rax")


def test_a_file_is_no_folder(folder):
    with pytest.raises(MnemonError, match=r"a\.png' is a file, not a folder"):
        concept_from_folder(folder / "a.png")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "rex").mkdir()
    with pytest.raises(MnemonError, match="rex' is empty: put a few photos"):
        concept_from_folder(tmp_path / "rex")


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    folder = tmp_path / "rex"
    save_image(folder / "raw" / "a.png")
    for index in range(6):
        (folder / f"IMG_{index}.HEIC").touch()
    with pytest.raises(MnemonError, match=r"holds no images, only IMG_0\.HEIC, .*IMG_4\.HEIC and 2 more: put"):
        concept_from_folder(folder)


def test_a_damaged_photo_stops_the_whole_folder(folder):
    (folder / "c.jpg").write_text("not an image")
    with pytest.raises(MnemonError, match=r"c\.jpg"):
        concept_from_folder(folder)


def test_the_pixel_limit_reaches_the_photos(folder):
    with pytest.raises(MnemonError, match="limit of 100"):
        concept_from_folder(folder, max_pixels=100)


@pytest.mark.parametrize("name", ["Rex", "../rex", "rex dog", "<rex>", "7up", "a" * 41, "rex\n", "réx"])
def test_an_unsafe_name_is_refused(folder, name):
    with pytest.raises(MnemonError, match="cannot name a concept: use 1 to 40"):
        concept_from_folder(folder, name)
    with pytest.raises(MnemonError, match="cannot name a concept: use 1 to 40"):
        Concept(name, (photo(np.zeros((2, 2, 3), np.uint8)),))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Rex", "rex"), ("Mein Hund", "mein_hund"), ("my.dog", "my_dog"), ("Größe", "grosse"), ("2 My Dog!", "my_dog"),
        ("Ünï-Çødé", "uni-cde"), ("__Rex__", "rex"), ("R" * 60, "r" * 40),
    ],
)  # fmt: skip
def test_a_folder_whose_name_is_unsafe_gives_a_safe_one_with_a_word(tmp_path, caplog, folder, name):
    save_image(tmp_path / folder / "a.png")
    assert concept_from_folder(tmp_path / folder).name == name
    assert f"its concept is <{name}>" in caplog.text
    assert concept_from_folder(tmp_path / folder, "other").name == "other"


@pytest.mark.parametrize("folder", ["123", "!!!", "写真"])
def test_a_folder_without_a_letter_for_a_name_needs_one(tmp_path, folder):
    save_image(tmp_path / folder / "a.png")
    with pytest.raises(MnemonError, match="cannot name a concept: give the concept a name of its own .--name."):
        concept_from_folder(tmp_path / folder)


def test_the_current_folder_has_a_name_too(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert concept_from_folder(".").name == "rex"


def test_an_imagefolder_gives_photos_and_captions_in_its_order(folder):
    save_image(folder / "more" / "c.png", BLUE)
    write_metadata(
        folder,
        {"file_name": "b.png", "text": "<rex> on a sofa", "width": 24},
        "",
        {"file_name": "more/c.png", "text": "<rex> at sea"},
    )
    concept = concept_from_imagefolder(folder, class_noun="dog")
    assert [photo.caption for photo in concept.photos] == ["<rex> on a sofa", "<rex> at sea"]
    assert [photo.image.getpixel((0, 0)) for photo in concept.photos] == [GREEN, BLUE]
    assert [photo.source for photo in concept_from_folder(folder).photos] == [photo.source for photo in concept.photos]


@pytest.mark.parametrize(
    "line", ["{", "[]", '"a.png"', '{"file_name": "a.png"}', '{"file_name": "a.png", "text": 3}', '{"text": "<rex>"}']
)
def test_a_malformed_line_is_refused_by_number(folder, line):
    write_metadata(folder, {"file_name": "b.png", "text": "<rex>"}, line)
    with pytest.raises(MnemonError, match=r"Malformed metadata in line 2 of '.*metadata\.jsonl'"):
        concept_from_folder(folder)


def test_metadata_must_name_photos_that_are_there(folder):
    write_metadata(folder, {"file_name": "z.png", "text": "<rex>"})
    with pytest.raises(MnemonError, match=r"There is no photo '.*z\.png', which line 1"):
        concept_from_folder(folder)


@pytest.mark.parametrize("file_name", ["../secret.png", "/etc/secret.png", "more/../../secret.png"])
def test_metadata_cannot_reach_out_of_its_folder(folder, file_name):
    save_image(folder.parent / "secret.png")
    write_metadata(folder, {"file_name": file_name, "text": "<rex>"})
    with pytest.raises(MnemonError, match="line 1 of '.*' leaves the folder"):
        concept_from_folder(folder)


def test_a_metadata_caption_without_the_token_is_refused(folder):
    write_metadata(folder, {"file_name": "a.png", "text": "a dog"})
    with pytest.raises(MnemonError, match="The caption in line 1 of '.*' does not name the concept: write <rex>"):
        concept_from_folder(folder)


def test_metadata_without_a_line_is_refused(folder):
    write_metadata(folder)
    with pytest.raises(MnemonError, match="names no photos"):
        concept_from_folder(folder)


def test_an_imagefolder_needs_its_metadata(folder):
    with pytest.raises(MnemonError, match=r"There is no file '.*metadata\.jsonl'"):
        concept_from_imagefolder(folder)
