"""Optimisers, averages and captions left out."""

import sys

import pytest
import torch
from torch import nn

from mnemon.errors import MnemonError
from mnemon.methods.textual_inversion import TextualInversion
from mnemon.models import Base
from mnemon.training.ema import Ema
from mnemon.training.examples import Batch, without_captions
from mnemon.training.optimizers import OptimizerName, make_optimizer
from tests.tiny import tiny_sd_base
from tests.training.runs import learn

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def groups() -> list[dict[str, object]]:
    slow, fast = (nn.Parameter(torch.full((4, 3), 2.0)) for _ in range(2))
    return [{"params": [slow], "lr": 1e-3}, {"params": [fast], "lr": 1e-1}]


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy"])
def test_an_optimiser_goes_downhill_at_the_groups_own_rates(name: OptimizerName) -> None:
    if name == "prodigy":
        pytest.importorskip("prodigyopt")
    made = groups()
    optimizer = make_optimizer(name, made, CPU)
    for _ in range(20):
        optimizer.zero_grad()
        sum(group["params"][0].square().sum() for group in made).backward()  # type: ignore[index]
        optimizer.step()
    slow, fast = (float(group["params"][0].detach().abs().mean()) for group in made)  # type: ignore[index]
    assert fast < 2 and (slow == fast if name == "prodigy" else fast < slow < 2)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == ([1.0, 1.0] if name == "prodigy" else [1e-3, 1e-1])


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(MnemonError, match=r"pip install 'mnemon\[prodigy\]'"):
        make_optimizer("prodigy", groups(), CPU)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MnemonError, match="needs a GPU"):
        make_optimizer("adamw8bit", groups(), CPU)
    with pytest.raises(MnemonError, match=r"mnemon\[quant\]"):
        make_optimizer("adamw8bit", groups(), torch.device("cuda"))


def test_an_average_follows_and_gives_back_the_same_bits() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    ema = Ema([parameter], 0.9)
    for value in (1.0, 2.0):
        parameter.data.fill_(value)
        ema.update()
    # decays 2/11 and 3/12: 9/11, then 9/11 * 1/4 + 2 * 3/4
    expected = 9 / 11 / 4 + 1.5
    with ema.applied():
        assert parameter.tolist() == pytest.approx([expected] * 2)
    assert parameter.tolist() == [2.0, 2.0]
    ema.apply_to_parameters()
    assert parameter.tolist() == pytest.approx([expected] * 2)


def test_captions_are_left_out_at_their_rate_but_for_the_first() -> None:
    rows = torch.zeros(400)
    batch = Batch(rows[:, None, None, None], rows, rows, ["a dog"] * 400, rows, rows.long(), rows)
    dropped = without_captions(batch, 0.25, torch.Generator().manual_seed(0)).prompts
    assert dropped[0] == "a dog" and 60 < dropped.count("") < 140
    nearly_all = without_captions(batch, 0.999, torch.Generator().manual_seed(0)).prompts
    assert nearly_all[0] == "a dog" and nearly_all.count("") > 390


def test_a_part_without_captions_trains_no_token(base: Base) -> None:
    settings = {"caption_dropout": 0.99, "batch_size": 3, "gradient_accumulation_steps": 3, "steps": 2}
    learned = learn(base, TextualInversion(), settings)
    assert all(bool(vectors.isfinite().all()) for vectors in learned.tokens.values())
