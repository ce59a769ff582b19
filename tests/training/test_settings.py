import pytest

from mnemon.errors import MnemonError
from mnemon.training import TrainingSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_accumulation_steps": 0}, "'gradient_accumulation_steps' is 0; expected more than 0"),
        ({"steps": -1}, "'steps' is -1"),
        ({"steps": 2.5}, "'steps' is 2.5; expected a whole number or nothing"),
        ({"mixed_precision": "half"}, "one of 'no', 'bf16', 'fp16'"),
        ({"snr_gamma": 0.0}, "'snr_gamma' is 0.0"),
        ({"optimizer": "lion"}, "one of 'adamw', 'adamw8bit', 'adafactor', 'prodigy'"),
        ({"ema_decay": 1.0}, "'ema_decay' is 1.0"),
        ({"caption_dropout": -0.1}, "'caption_dropout' is -0.1"),
        ({"max_grad_norm": 0.0}, "'max_grad_norm' is 0.0"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(MnemonError, match=message):
        TrainingSettings(**settings)


def test_rates_rise_stay_and_fall() -> None:
    constant = TrainingSettings(lr_warmup_steps=3)
    assert [constant.lr_factor(step, 6) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = TrainingSettings(lr_warmup_steps=1, lr_scheduler="cosine")
    factors = [cosine.lr_factor(step, 101) for step in range(101)]
    assert factors[:2] == [0.5, 1.0] and factors[51] == pytest.approx(0.5) and 0 < factors[-1] < 0.001
    linear = TrainingSettings(lr_warmup_steps=2, lr_scheduler="linear")
    assert [linear.lr_factor(step, 6) for step in range(2, 6)] == [1.0, 0.75, 0.5, 0.25]
    assert TrainingSettings(lr_scheduler="cosine", lr_warmup_steps=5).lr_factor(0, 1) > 0


def test_settings_that_came_later_are_facts_of_a_run_only_where_they_are_set() -> None:
    later = {"max_grad_norm": 1.0, "optimizer": "adafactor", "ema_decay": 0.9, "caption_dropout": 0.1}
    assert not set(later) & set(TrainingSettings().decisive())
    assert later.items() <= TrainingSettings(**later).decisive().items()
