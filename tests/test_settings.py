import json
from dataclasses import fields

import pytest

from mnemon.errors import MnemonError
from mnemon.methods import METHODS, method_from, method_settings, method_with
from mnemon.methods.fl2t import Fl2t
from mnemon.methods.lora import Lora
from mnemon.methods.replay import Replay
from mnemon.methods.stamina import Stamina
from mnemon.settings import RENAMED, settings_from_json
from mnemon.training import TrainingSettings


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
        ("lora", {"learning_rate": "fast"}, "'learning_rate' is 'fast'; expected a number"),
        ("lora", {"learning_rate": float("nan")}, "'learning_rate' is nan"),
        ("lora", {"steps": -1}, "'steps' is -1; expected 0 or more"),
        ("lora", {"use_class_noun": 1}, "'use_class_noun' is 1; expected true or false"),
        ("cns", {"q": 1.5}, "'q' is 1.5; expected a share, more than 0 and at most 1"),
        ("cns", {"q": 0}, "'q' is 0; expected a share"),
        ("stamina", {"mask": "hard"}, "one of 'none', 'soft', 'sigmoid_st', 'gumbel_st'"),
    ],
)
def test_a_bad_setting_is_named(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(MnemonError, match=message):
        method_from(name, settings)


@pytest.mark.parametrize("cls", [Lora, Stamina])
def test_the_class_noun_follows_the_token_unless_switched_off(cls) -> None:
    assert cls().prompt_name("rex", "dog") == "<rex> dog"
    assert cls().prompt_name("rex", None) == "<rex>"
    assert cls(use_class_noun=False).prompt_name("rex", "dog") == "<rex>"


def test_former_names_of_settings_mean_the_new_ones() -> None:
    """As they stand in the files of libraries and runs of earlier versions."""
    former = {"rate": 3e-3, "token_rate": 1e-3, "mask_rate": 2e-3, "vectors": 2, "class_word": False, "batch": 3}
    names = ("learning_rate", "token_lr", "mask_lr", "num_vectors", "use_class_noun", "batch_size")
    expected = Stamina(**dict(zip(names, former.values(), strict=True)))  # type: ignore[arg-type]
    assert method_from("stamina", former) == expected
    assert method_from("replay", {"rehearsal": 2}) == Replay(num_replay_images=2)
    assert method_from("fl2t", {"network_rate": 2e-3, "guidance": "none"}) == Fl2t(network_lr=2e-3, guidance="none")


def test_settings_of_a_method_are_changed_under_either_name() -> None:
    assert method_with(Lora(rank=3), {"rate": 1e-3, "steps": 5}) == Lora(rank=3, learning_rate=1e-3, steps=5)
    with pytest.raises(MnemonError, match="'lora' has no setting 'rnak'; did you mean 'rank'"):
        method_with(Lora(), {"rnak": 1})


def test_every_former_name_is_of_a_setting_of_now() -> None:
    known = {field.name for cls in [*METHODS.values(), TrainingSettings] for field in fields(cls)}
    assert set(RENAMED.values()) - known <= {"guidance_scale", "negative_prompt"}  # of sampling
    former = {"accumulate": 2, "min_snr": 5.0, "warm_up": 3, "schedule": "cosine", "prior_weight": 0.5}
    settings = settings_from_json(TrainingSettings, former | {"snapshot_seconds": 1.0}, "Training")
    assert settings == TrainingSettings(
        gradient_accumulation_steps=2,
        snr_gamma=5.0,
        lr_warmup_steps=3,
        lr_scheduler="cosine",
        prior_loss_weight=0.5,
        checkpoint_seconds=1.0,
    )


def test_a_setting_under_both_of_its_names_is_refused() -> None:
    with pytest.raises(MnemonError, match="'rate' and 'learning_rate', which are one setting: keep 'learning_rate'"):
        method_from("lora", {"rate": 1e-3, "learning_rate": 1e-3})
