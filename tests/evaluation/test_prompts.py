"""The fixed evaluation prompts."""

import pytest

from mnemon.errors import MnemonError
from mnemon.evaluation.prompts import PROMPTS, EvalPrompts, concept_prompts, prompt_set
from mnemon.evaluation.settings import EvalSettings
from mnemon.world.captions import vocabulary


def prompts_of(name: str, prompt_name: str, class_noun: str | None) -> EvalPrompts:
    return concept_prompts(prompt_name, class_noun, PROMPTS[name], len(PROMPTS[name].templates))


def test_the_worlds_prompts_use_only_words_that_its_base_has_seen():
    known = set(vocabulary())
    words = [*prompts_of("world", "<rex> mug", "mug").words, *prompts_of("world", "<rex>", None).words]
    for prompt in [*PROMPTS["world"].control, *words]:
        assert set(prompt.split()) <= known, prompt


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_name_the_concept_once_and_words_do_not(name):
    dog, unnamed = prompts_of(name, "<rex> dog", "dog"), prompts_of(name, "<rex>", None)
    assert all(prompt.count("<rex> dog") == 1 for prompt in dog.prompts)
    assert not any("<" in prompt or "  " in prompt for prompt in dog.words + unnamed.words)
    assert all("a dog" in prompt for prompt in dog.words)
    assert len(set(PROMPTS[name].control)) == 16


@pytest.mark.parametrize("name", PROMPTS)
def test_sixteen_images_a_concept_by_default(name):
    assert EvalSettings().num_images == 16
    assert EvalSettings().to_row_json(name)["seeds_per_prompt"] * len(PROMPTS[name].templates) == 16


def test_settings_are_written_with_the_keys_of_rows_that_exist():
    row = {"prompts": "world", "seeds_per_prompt": 2, "first_seed": 1000, "guidance": 4.0, "steps": 20, "batch": 16}
    assert EvalSettings().to_row_json("world") == row
    job = {"pictures": 16, "steps": 20, "guidance": 4.0, "batch": 16, "first_seed": 1000}
    assert EvalSettings().to_json() == job
    rare = {"scheduler": "DPMSolverMultistep", "negative": "blur", "templates": ["a {} on a rug"]}
    settings = EvalSettings(scheduler="DPMSolverMultistep", negative_prompt="blur", templates=("a {} on a rug",))
    assert settings.to_json() == job | rare and settings.to_row_json("world") == row | rare | {"seeds_per_prompt": 16}


def test_unknown_prompts_are_refused():
    with pytest.raises(MnemonError, match="choose from world, photographs"):
        prompt_set("poems")
