import json

import pytest

from mnemon.errors import MnemonError
from mnemon.methods import METHODS, method_from, method_settings
from mnemon.methods.lora import Lora
from mnemon.methods.stamina import Stamina


@pytest.mark.parametrize("name", METHODS)
def test_settings_survive_json(name: str) -> None:
    method = METHODS[name]()
    assert method_from(name, json.loads(json.dumps(method_settings(method)))) == method


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("stamnia", {}, "did you mean 'stamina'"),
        ("qqq", {}, "known: lora, stamina"),
        ("lora", {"rnak": 4}, "'lora' has no setting 'rnak'; did you mean 'rank'"),
        ("lora", {"rank": 0}, "'rank' is 0; expected more than 0"),
        ("lora", {"rank": 2.5}, "'rank' is 2.5; expected a whole number"),
        ("lora", {"rank": True}, "'rank' is True; expected a whole number"),
        ("lora", {"rate": "fast"}, "'rate' is 'fast'; expected a number"),
        ("lora", {"rate": float("nan")}, "'rate' is nan"),
        ("lora", {"steps": -1}, "'steps' is -1; expected 0 or more"),
        ("lora", {"class_word": 1}, "'class_word' is 1; expected true or false"),
        ("stamina", {"mask": "hard"}, "one of 'none', 'soft', 'sigmoid_st', 'gumbel_st'"),
    ],
)
def test_a_bad_setting_is_named(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(MnemonError, match=message):
        method_from(name, settings)


@pytest.mark.parametrize("cls", [Lora, Stamina])
def test_the_class_word_follows_the_token_unless_switched_off(cls) -> None:
    assert cls().prompt_name("rex", "dog") == "<rex> dog"
    assert cls().prompt_name("rex", None) == "<rex>"
    assert cls(use_class_noun=False).prompt_name("rex", "dog") == "<rex>"
