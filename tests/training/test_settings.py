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
    assert TrainingSettings(lr_scheduler="cosine", lr_warmup_steps=5).lr_factor(0, 1) > 0
