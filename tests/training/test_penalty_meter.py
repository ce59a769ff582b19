"""A method whose protection of earlier concepts does nothing says so."""

import logging
from pathlib import Path

import pytest

from mnemon.methods import Method, TrainedConcept
from mnemon.methods.c_lora import CLora
from mnemon.methods.cns import Cns
from mnemon.methods.ewc import Ewc
from mnemon.methods.lwf import Lwf
from mnemon.methods.stamina import Stamina
from mnemon.models import Base
from tests.contract.table import learn
from tests.tiny import tiny_sd_base

SHORT = {"steps": 4, "batch_size": 2}
LORA = {**SHORT, "rank": 2}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def rex(base: Base) -> TrainedConcept:
    return learn(base, CLora(**LORA), "rex")


def test_the_share_is_kept_and_a_protection_that_hardly_acts_is_named(
    base: Base, rex: TrainedConcept, caplog: pytest.LogCaptureFixture
) -> None:
    logs: list[tuple[float, float]] = []
    with caplog.at_level(logging.WARNING, "mnemon"):
        strong = learn(base, CLora(**LORA, forget_weight=1e6), "kiki", [rex])
        assert not caplog.records
        weak = learn(
            base,
            CLora(**LORA, forget_weight=1e-9),
            "kiki",
            [rex],
            on_step=lambda step, steps, said: logs.append((said["loss"], said["penalty"])),
        )
    losses, penalties = zip(*logs, strict=True)
    assert weak.facts["penalty_share"] == pytest.approx(sum(penalties) / sum(losses))
    assert weak.facts["penalty_share"] < 1e-3 < strong.facts["penalty_share"]
    (record,) = caplog.records
    assert "before 'kiki'" in record.message and "raise 'forget_weight'" in record.message


@pytest.mark.parametrize(
    "method",
    [
        CLora(**LORA),
        Stamina(**LORA, mask_rank=2, token_hidden=8),
        Ewc(**SHORT, draws=2),
        Lwf(**LORA),
        Cns(**SHORT, score="wanda"),
    ],
    ids=lambda method: method.name,
)
def test_there_is_a_share_where_there_is_something_to_protect(base: Base, method: Method) -> None:
    first = learn(base, method, "rex")
    assert "penalty_share" not in first.facts
    assert learn(base, method, "kiki", [first]).facts["penalty_share"] > 0


def test_a_protection_that_is_switched_off_is_meant(
    base: Base, rex: TrainedConcept, caplog: pytest.LogCaptureFixture
) -> None:
    assert "penalty_share" not in learn(base, CLora(**LORA, forget_weight=0.0), "kiki", [rex]).facts
    assert not caplog.records


@pytest.mark.parametrize("killed", [2, 4])
def test_a_resumed_run_knows_the_share_of_the_whole(
    base: Base, rex: TrainedConcept, tmp_path: Path, killed: int
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, CLora(**LORA), "kiki", [rex], tmp_path, stop, checkpoint_seconds=0)
    resumed = learn(base, CLora(**LORA), "kiki", [rex], tmp_path)
    assert resumed.facts == learn(base, CLora(**LORA), "kiki", [rex]).facts


def test_in_parts_the_share_is_the_same(base: Base, rex: TrainedConcept) -> None:
    whole, parts = (
        learn(base, CLora(**LORA), "kiki", [rex], gradient_accumulation_steps=count).facts["penalty_share"]
        for count in (1, 2)
    )
    assert parts == pytest.approx(whole, rel=1e-2)
