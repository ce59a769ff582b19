import json

import pytest

from mnemon.data import concepts_from_list
from mnemon.errors import MnemonError
from tests.data.images import save_image


@pytest.fixture
def write(tmp_path):
    """Writes a list file beside two folders of photos, cat/ and dog/."""
    for name in ("cat", "dog"):
        save_image(tmp_path / name / "0.png")
        save_image(tmp_path / name / "1.png")

    def write_list(content):
        file = tmp_path / "concepts.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return file

    return write_list


def test_a_list_gives_its_concepts_in_order(write, tmp_path):
    (tmp_path / "dog" / "1.txt").write_text("<rex> asleep")
    file = write(
        [
            {
                "instance_prompt": "photo of a <tom> cat",
                "class_prompt": "cat",
                "instance_data_dir": "./cat",
                "class_data_dir": "./not/made/yet",
            },
            {
                "instance_prompt": "a <rex> dog",
                "class_prompt": "a photo of a guide dog",
                "instance_data_dir": str(tmp_path / "dog"),
            },
        ]
    )
    tom, rex = concepts_from_list(file)
    assert (tom.name, tom.class_noun, rex.name, rex.class_noun) == ("tom", "cat", "rex", "guide dog")
    assert [photo.caption for photo in tom.photos] == ["photo of a <tom> cat"] * 2
    assert [photo.caption for photo in rex.photos] == ["a <rex> dog", "<rex> asleep"]


def test_without_a_token_the_folder_names_the_concept(write):
    entry = {"instance_prompt": "photo of a sks dog", "class_prompt": None, "instance_data_dir": "dog"}
    (concept,) = concepts_from_list(write([entry]))
    assert (concept.name, concept.class_noun) == ("dog", None)
    assert {photo.caption for photo in concept.photos} == {None}


@pytest.mark.parametrize(
    ("prompt", "class_noun"),
    [
        ("dog", "dog"),
        ("A Photo of the dog", "dog"),
        ("picture of an old can", "old can"),
        ("photo", "photo"),
        (" ", None),
    ],
)
def test_the_noun_is_the_class_prompt_without_its_lead_in(write, prompt, class_noun):
    (concept,) = concepts_from_list(write([{"class_prompt": prompt, "instance_data_dir": "dog"}]))
    assert concept.class_noun == class_noun


def test_two_concepts_of_one_name_are_refused(write):
    entries = [{"instance_prompt": "<rex>", "instance_data_dir": name} for name in ("dog", "cat")]
    with pytest.raises(MnemonError, match=r"Entries 1 and 2 of '.*concepts\.json' are both named 'rex'"):
        concepts_from_list(write(entries))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", r"concepts\.json' is no JSON \(line 1"),
        ("", r"concepts\.json' is no JSON"),
        ({}, r"concepts\.json' must be a JSON list"),
        ([], r"concepts\.json' must be a JSON list"),
        (["dog"], "Entry 1 of '.*' has no instance_data_dir"),
        ([{"instance_prompt": "<rex>"}], "Entry 1 of '.*' has no instance_data_dir"),
        (
            [{"instance_data_dir": "dog", "clas_prompt": "dog"}],
            "unknown field 'clas_prompt': the fields are instance_p",
        ),
        ([{"instance_data_dir": "dog", "class_prompt": 3}], "The class_prompt in entry 1 of '.*' is no text"),
        ([{"instance_data_dir": ["dog"]}], "The instance_data_dir in entry 1 of '.*' is no text"),
        ([{"instance_data_dir": "dog"}, {"instance_data_dir": "cow"}], "There is no folder '.*cow'"),
        ([{"instance_data_dir": "dog", "instance_prompt": "<a> and <b>"}], "in entry 1 of '.*' has 2 tokens"),
        ([{"instance_data_dir": "dog", "instance_prompt": "<Rex>"}], "token <Rex> in entry 1 of '.*' cannot name"),
    ],
)
def test_a_malformed_list_is_refused(write, content, message):
    with pytest.raises(MnemonError, match=message):
        concepts_from_list(write(content))


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(MnemonError, match=r"There is no file '.*none\.json'"):
        concepts_from_list(tmp_path / "none.json")
