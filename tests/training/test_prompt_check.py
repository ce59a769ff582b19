"""Captions are said to the text encoders once before the first step."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from mnemon.data import Concept, Photo
from mnemon.errors import MnemonError
from mnemon.methods import method_from
from mnemon.methods.lora import Lora
from mnemon.models import Base
from mnemon.training import TrainingSettings, make_tasks, train
from mnemon.training.prompt_check import check_training_prompts
from tests.tiny import tiny_sd_base

LORA = Lora(rank=2, steps=50, batch_size=1)
LONG = " ".join(["a"] * 100)


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def concept(caption: str) -> Concept:
    photo = Photo(Image.new("RGB", (64, 64)), "", "", "a photo of <rex>", "'00.txt'")
    return Concept("rex", (*[photo] * 20, replace(photo, caption=caption, caption_source="'folder/19.txt'")), "dog")


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        (f"{LONG} <rex>", r"The caption in 'folder/19\.txt': The prompt .* tokens, this base reads .* shorten it"),
        ("<rex> and <tom>", r"The caption in 'folder/19\.txt': The prompt .* names <tom>, which is not known"),
        (f"<rex> {LONG} <rex>", r"The caption in 'folder/19\.txt': .* shorten it"),
    ],
)
def test_a_bad_caption_is_named_before_the_first_step(base: Base, caption: str, message: str, tmp_path) -> None:
    steps: list[int] = []
    tasks = make_tasks(base, LORA, [concept(caption)])
    with pytest.raises(MnemonError, match=message):
        train(base, LORA, tasks, folder=tmp_path, on_step=lambda done, of, logs: steps.append(done))
    assert not steps and not list(tmp_path.iterdir())


def test_the_check_draws_no_random_numbers(base: Base, monkeypatch) -> None:
    tasks, settings = make_tasks(base, LORA, [concept("<rex>")]), TrainingSettings(steps=3)
    with_check = train(base, LORA, tasks, settings=settings)[0]
    monkeypatch.setattr("mnemon.training.run.Run.check_prompts", lambda run: None)
    without = train(base, LORA, tasks, settings=settings)[0]
    for name, delta in with_check.deltas.items():
        assert torch.equal(delta.matrix(), without.deltas[name].matrix())


def test_a_long_caption_with_the_token_early_is_a_warning_that_is_given_once(base: Base) -> None:
    tasks = make_tasks(base, LORA, [concept(f"<rex> {LONG}")])
    with pytest.warns(UserWarning, match="is ignored"):
        train(base, LORA, tasks, settings=TrainingSettings(steps=1))


@pytest.mark.parametrize("name", ["lora", "stamina", "fl2t", "mix-of-show", "textual-inversion"])
def test_a_later_concept_of_a_list_is_checked_with_the_first(base: Base, name: str) -> None:
    method, before = method_from(name), base.tokens
    tom = replace(concept("<rex> and <tom>"), name="tom")
    tom = replace(tom, photos=tuple(replace(one, caption=f"<tom> {one.caption}") for one in tom.photos))
    check_training_prompts(base, method, [[concept("<rex>")], [tom]])
    with pytest.raises(MnemonError, match="names <rex>, which is not known"):
        check_training_prompts(base, method, [[tom], [concept("<rex>")]])
    with pytest.raises(MnemonError, match=r"The caption in 'folder/19\.txt': .* shorten it"):
        check_training_prompts(
            base, method, [[concept("<rex>")], [replace(concept(f"{LONG} <sip> <rex>"), name="sip")]]
        )
    assert base.tokens == before


def test_class_images_need_a_class_before_they_are_drawn(base: Base) -> None:
    no_noun = replace(concept("<rex>"), class_noun=None)
    check_training_prompts(base, LORA, [[no_noun]])
    with pytest.raises(MnemonError, match="give 'rex' a class noun"):
        check_training_prompts(base, LORA, [[no_noun]], with_class_images=True)
