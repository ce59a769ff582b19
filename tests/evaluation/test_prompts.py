"""The fixed evaluation prompts."""

import pytest

from mnemon.evaluation.evaluate import ScoreSettings, settings_for
from mnemon.evaluation.prompts import PROMPTS
from mnemon.world.captions import vocabulary


def test_the_worlds_prompts_use_only_words_that_its_base_has_seen():
    known = set(vocabulary())
    world = PROMPTS["world"]
    for prompt in [*world.general, *world.in_words("mug"), *world.in_words(None)]:
        assert set(prompt.split()) <= known, prompt


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_name_the_concept_once_and_words_do_not(name):
    prompts = PROMPTS[name]
    assert all(prompt.count("<rex> dog") == 1 for prompt in prompts.of_concept("<rex> dog"))
    assert not any("<" in prompt or "  " in prompt for prompt in prompts.in_words("dog") + prompts.in_words(None))
    assert all("a dog" in prompt for prompt in prompts.in_words("dog"))
    assert len(set(prompts.general)) == 16


@pytest.mark.parametrize("name", PROMPTS)
def test_sixteen_images_a_concept_by_default(name):
    class Named:
        prompts = name

    settings = settings_for(Named())
    assert settings.seeds_per_prompt * len(PROMPTS[name].templates) == 16
    assert ScoreSettings() == settings_for(type("World", (), {"prompts": "world"})())
