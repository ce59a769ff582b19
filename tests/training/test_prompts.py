from dataclasses import replace

import pytest
from PIL import Image

from mnemon.data import Concept, Photo
from mnemon.errors import MnemonError
from mnemon.methods.lora import Lora
from mnemon.training.prompts import class_prompt, preview_prompt, prompt_sources, rename, training_prompts


def rex(*captions: str | None, class_noun: str | None = "dog") -> Concept:
    image = Image.new("RGB", (8, 8))
    return Concept("rex", tuple(Photo(image, "", "", caption) for caption in captions or (None,)), class_noun)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of <rex> on a sofa", "a photo of <rex> dog on a sofa"),
        ("a photo of <rex> dog on a sofa", "a photo of <rex> dog on a sofa"),
        ("<rex>  dog", "<rex> dog"),
        ("<rex> doghouse", "<rex> dog doghouse"),
        ("<rex> and <rex> dog", "<rex> dog and <rex> dog"),
        ("<rex>", "<rex> dog"),
        ("two <rex> dogs", "two <rex> dogs"),
        ("<rex> Dog on a sofa", "<rex> Dog on a sofa"),
        ("<rex> DOGS!", "<rex> DOGS!"),
        ("the dog <rex> asleep", "the <rex> dog asleep"),
        ("<rex> the dog", "<rex> dog"),
        ("<rex>'s bowl", "<rex> dog's bowl"),
        ("a dog and <rex>", "a dog and <rex> dog"),
    ],
)
def test_a_caption_calls_the_concept_as_the_method_does(caption: str, expected: str) -> None:
    assert training_prompts(rex(caption), Lora()) == ([0], [expected])


@pytest.mark.parametrize(
    ("noun", "caption"),
    [
        ("wolf", "<rex> wolves"),
        ("puppy", "three <rex> puppies"),
        ("knife", "<rex> knives"),
        ("person", "<rex> people"),
        ("man", "<rex> men"),
        ("woman", "<rex> women"),
        ("fox", "<rex> foxes"),
        ("goose", "<rex> geese"),
        ("stuffed animal", "<rex> Stuffed  animals"),
        ("golden retriever", "<rex> golden retrievers"),
    ],
)
def test_a_plural_is_the_noun_too(noun: str, caption: str) -> None:
    assert training_prompts(rex(caption, class_noun=noun), Lora())[1] == [caption]
    without = training_prompts(rex(caption, class_noun=noun), Lora(use_class_noun=False))[1]
    assert without == [caption.partition(">")[0] + ">"]


def test_a_photo_with_repeats_is_drawn_as_often() -> None:
    concept = rex("<rex> at night", None)
    concept = replace(concept, photos=(replace(concept.photos[0], repeats=3), concept.photos[1]))
    rows, prompts = training_prompts(concept, Lora())
    assert rows == [0] * 3 + [1] * 3 and prompts[:3] == ["<rex> dog at night"] * 3


def test_prompts_of_captions_know_where_they_were_read() -> None:
    concept = rex("<rex> at night", None)
    concept = replace(concept, photos=(replace(concept.photos[0], caption_source="'a.txt'"), concept.photos[1]))
    assert prompt_sources(concept, Lora()) == {"<rex> dog at night": "the caption in 'a.txt'"}


def test_without_the_class_word_the_noun_goes() -> None:
    method = Lora(use_class_noun=False)
    assert training_prompts(rex("a <rex> dog"), method)[1] == ["a <rex>"]
    assert training_prompts(rex("in <rex> style", class_noun=None), Lora())[1] == ["in <rex> style"]


def test_odd_characters_are_taken_as_they_are() -> None:
    concept = rex(class_noun=r"c++ \1 dog")
    assert rename(r"a <rex> c++ \1 dog", concept, r"<rex> \1") == r"a <rex> \1"


def test_a_photo_without_caption_has_every_template() -> None:
    rows, prompts = training_prompts(rex(None, "my <rex>"), Lora())
    assert rows == [0, 0, 0, 1]
    assert prompts == ["a photo of <rex> dog", "a picture of <rex> dog", "<rex> dog", "my <rex> dog"]


def test_prompts_of_the_class() -> None:
    assert class_prompt(rex()) == "a photo of a dog"
    assert [class_prompt(rex(class_noun=class_noun)) for class_noun in ("owl", "Owl")] == [
        "a photo of an owl",
        "a photo of an Owl",
    ]
    for class_noun in (None, ""):
        with pytest.raises(MnemonError, match="noun"):
            class_prompt(rex(class_noun=class_noun))


def test_the_preview_names_the_concept() -> None:
    assert preview_prompt(rex(), Lora()) == "a photo of <rex> dog"
