import pytest
import torch

from mnemon.errors import MnemonError
from mnemon.methods.joint import Joint
from mnemon.methods.lora import Lora
from mnemon.models import Base
from mnemon.training import TrainingSettings, train
from tests.contract.table import assert_same_learned, learn, task
from tests.tiny import tiny_sd_base

SMALL = {"rank": 2, "steps": 4, "batch_size": 4}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def test_one_concept_is_learned_as_the_first_of_lora(base: Base) -> None:
    assert_same_learned(learn(base, Joint(**SMALL), "rex"), learn(base, Lora(**SMALL), "rex"))


def test_one_change_for_all_and_a_token_each(base: Base) -> None:
    method = Joint(**SMALL)
    seen: list[int] = []
    tasks = [task(base, method, name) for name in ("rex", "kiki", "mug")]
    three = train(base, method, tasks, on_step=lambda step, *_: seen.append(step))
    assert len(seen) == 3 * method.steps  # as many steps a concept as alone
    assert [bool(one.deltas) for one in three] == [False, True, False]  # the first by name
    apart = learn(base, Lora(**SMALL), "kiki")
    assert {target: delta.rank for target, delta in three[1].deltas.items()} == dict.fromkeys(apart.deltas, 2)
    starts = train(base, method, tasks, settings=TrainingSettings(steps=0))
    for one, start in zip(three, starts, strict=True):
        assert not torch.allclose(one.tokens["text_encoder"], start.tokens["text_encoder"], atol=1e-4)


def test_a_library_that_has_concepts_takes_no_more(base: Base) -> None:
    method = Joint(**SMALL)
    rex = learn(base, method, "rex")
    with pytest.raises(MnemonError, match="all its concepts at once"):
        train(base, method, [task(base, method, "kiki")], [rex])
