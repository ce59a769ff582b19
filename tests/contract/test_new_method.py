"""A new method is one file and one line: one that is written here joins METHODS, and nothing else knows of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from mnemon.adapters import Dense
from mnemon.cli import app
from mnemon.methods import METHODS, Learner, Method, Start, parts
from mnemon.models import Base
from mnemon.settings import NonNegativeInt, PositiveFloat, PositiveInt
from tests.contract import test_contract as contract
from tests.contract.table import learn_all, learn_one_more, small
from tests.tiny import tiny_sd_base


class ScaleLearner(Learner):
    """One number for each row of a weight."""

    def __init__(self, method: "RowScale", start: Start) -> None:
        token = parts.VectorToken(parts.random_embeddings(start.base, 1, start.generator))
        super().__init__(start, token, method.learning_rate)
        self.weights = {target: layer.weight.detach() for target, layer in start.base.target_modules().items()}
        self.scales = nn.ParameterList(torch.zeros(len(weight), 1) for weight in self.weights.values())
        self._deltas = {target: Dense(torch.zeros_like(weight)) for target, weight in self.weights.items()}

    def before_step(self, generator: torch.Generator) -> None:
        for scale, (target, weight) in zip(self.scales, self.weights.items(), strict=True):
            self._deltas[target].values = scale * weight

    def deltas(self) -> Mapping[str, Dense]:
        return self._deltas

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.scales), "lr": self.token_lr}, self.token_group()]

    def stored_deltas(self) -> Mapping[str, Dense]:
        pairs = zip(self.scales, self.weights.items(), strict=True)
        return {name: Dense((scale * weight).detach().clone()) for scale, (name, weight) in pairs}


@dataclass(frozen=True)
class RowScale(Method):
    """W_t = W_{t-1} + diag(s_t) W_0"""

    name: ClassVar[str] = "row-scale"
    source: ClassVar[str] = "none"
    trains: ClassVar[str] = "one number for each row of a weight, and the token"
    stores: ClassVar[str] = "the changes"

    learning_rate: PositiveFloat = 1e-2
    steps: NonNegativeInt = 200
    batch_size: PositiveInt = 8

    def begin(self, start: Start) -> ScaleLearner:
        return ScaleLearner(self, start)


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    METHODS["row-scale"] = RowScale
    yield
    del METHODS["row-scale"]


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def test_it_keeps_the_core_of_the_contract(tmp_path: Path, base: Base) -> None:
    method = small("row-scale")
    assert (method.steps, method.batch_size) == (2, 2)
    two = learn_all(base, method, ["rex", "kiki"])
    contract.test_a_concept_changes_what_its_token_generates(base, method, two)
    contract.test_saved_deltas_load_bit_for_bit(two)
    contract.test_the_optimiser_holds_exactly_the_learners_parameters(base, method, two)
    contract.test_every_parameter_is_trained(base, method, two, learn_one_more(base, method, two))
    contract.test_removing_a_concept_restores_exactly(tmp_path, base, method, two)
    contract.test_a_method_is_made_again_from_its_settings(method)
    contract.test_a_method_describes_itself(method)


def test_the_command_lists_it_with_its_settings() -> None:
    listed = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    (own,) = [method for method in listed if method["name"] == "row-scale"]
    assert own["trains"] == RowScale.trains and own["can_remove"] and not own["fuses"]
