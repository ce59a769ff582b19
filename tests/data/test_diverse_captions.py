"""Captions made of words that a base knows."""

import pytest

from mnemon.data.captions import captions_of_two, diverse_captions

KNOWN = {"a", "an", "photo", "of", "and", "orange", "mug", "elephant", "at", "night"}


def known(words):
    return [word for word in words if word in KNOWN]


@pytest.mark.parametrize(("captions", "things"), [(diverse_captions, 1), (captions_of_two, 2)])
def test_captions_name_so_many_things_in_known_words_alone(captions, things):
    made = captions(known, 40, seed=0)
    assert len(made) == 40
    assert all(set(caption.split()) <= KNOWN for caption in made)
    assert all(sum(word in ("mug", "elephant") for word in caption.split()) == things for caption in made)
    assert made == captions(known, 40, seed=0) != captions(known, 40, seed=1)


def test_a_base_that_knows_no_thing_is_refused():
    with pytest.raises(ValueError, match="none of the words"):
        captions_of_two(lambda words: [], 1, seed=0)
