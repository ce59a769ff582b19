"""Which concepts are sampled again after a new one, and what the forecast of the others is."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon import api
from mnemon.adapters import LowRank
from mnemon.data import Concept
from mnemon.evaluation import EvalSettings
from mnemon.evaluation.forecast import State, movement, movements, prompt_features
from mnemon.library import Library
from mnemon.methods.base import TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.models import Base, load_base
from mnemon.training import TrainingSettings
from mnemon.training.scoring import MOVED, carried_scores
from mnemon.world import thing_concept
from tests.tiny import tiny_sd_base

SCORE = EvalSettings(num_images=1, num_inference_steps=1)


def _row(**concepts: dict[str, Any]) -> dict[str, Any]:
    return {"concepts": {name: {"identity_alignment": 0.5, **more} for name, more in concepts.items()}}


def test_what_has_hardly_moved_keeps_its_scores_and_says_when_they_were_measured() -> None:
    row = _row(a={"sampled": 3, "movement": 0.03}, b={"sampled": 1, "movement": 0.0}, c={}, d={})
    carried = carried_scores("forecast", row, 7, {"a": 0.04, "b": 0.01, "c": 0.02, "d": MOVED})
    assert list(carried.scores) == ["c"]  # a and b are oldest, their turn has come; d has moved
    assert carried.scores["c"] == {"identity_alignment": 0.5, "sampled": 7, "movement": 0.02}
    assert carried.forecast["a"] == pytest.approx(0.05)  # the root of the sum of the squared steps


def test_new_ones_only_carries_all_others_however_far_they_moved() -> None:
    carried = carried_scores("new", _row(a={}, b={}), 4, {"a": 1.0, "b": 0.0})
    assert list(carried.scores) == ["a", "b"] and carried.scores["a"]["movement"] == 1.0


def test_small_steps_add_up_until_a_concept_is_sampled_again() -> None:
    row = _row(a={"sampled": 1, "movement": 0.08}, b={"sampled": 0}, c={"sampled": 0})
    assert "a" in carried_scores("forecast", row, 5, {"a": 0.01, "b": 0.0, "c": 0.0}).scores
    assert "a" not in carried_scores("forecast", row, 5, {"a": 0.07, "b": 0.0, "c": 0.0}).scores


def test_a_concept_whose_movement_is_not_known_is_sampled_again() -> None:
    assert not carried_scores("new", _row(a={}), 1, {}).scores


def test_the_forecast_is_the_change_of_the_keys_and_values_of_the_prompts() -> None:
    base = tiny_sd_base()
    target, module = next(iter(base.target_modules().items()))
    width = module.weight.shape[1]
    tokens = {name: torch.randn(1, size) for name, (size, _, _) in base.embedding_statistics().items()}
    rex = TrainedConcept("rex", "dog", {}, tokens)
    change = LowRank(torch.randn(module.weight.shape[0], 2), torch.randn(2, width), 0.01)
    new = TrainedConcept("tom", "cat", {target: change}, tokens)
    method = Lora()
    features = prompt_features(base, method, rex)
    moved = movements(base, State(method, [rex]), State(method, [rex, new]), lambda one: features)
    read = next(iter(features.values()))
    relative = (change.matrix() @ read).norm() / (module.weight @ read).norm()
    assert moved == {"rex": pytest.approx(float(relative) / len(base.target_modules()) ** 0.5, rel=1e-4)}
    assert movement(base, features, {}, {}) == 0


@pytest.fixture(scope="module")
def base(world_folder: Path) -> Base:
    return load_base(str(world_folder))


@pytest.fixture
def five(base: Base, tmp_path: Path) -> Path:
    """A library of five concepts of no training, all sampled in each row."""
    for number in range(5):
        _learn(tmp_path / "library", base, f"mug{number}", steps=0)
    return tmp_path / "library"


def _learn(path: Path, base: Base, name: str, steps: int, **more: Any) -> tuple[api.LearnResult, list[Any]]:
    sampled: list[Any] = []
    concept: Concept = thing_concept(name, 201, "mug").photos(1, seed=1)
    method = Lora(rank=2, batch_size=1, learning_rate=0.5)
    result = api.learn(
        path, concept, base=base, method=method, training=TrainingSettings(steps=steps), score=SCORE,
        on_images=lambda one, images: sampled.append(one), **more,
    )  # fmt: skip
    return result, sampled


def test_learning_samples_the_new_concept_two_in_turn_and_the_general_prompts(five: Path, base: Base) -> None:
    result, sampled = _learn(five, base, "next", steps=0, resample="forecast")
    assert sampled == ["mug0", "mug1", "next", None] and result.row is not None
    assert [name for name, scores in result.row["concepts"].items() if "sampled" in scores] == ["mug2", "mug3", "mug4"]
    assert Library.open(five).rows()[6] == result.row
    assert _learn(five, base, "last", steps=0, resample="forecast")[1] == ["mug2", "mug3", "last", None]


def test_what_moved_is_sampled_again_unless_only_new_ones_are_wanted(five: Path, base: Base) -> None:
    assert len(_learn(five, base, "new", steps=3, resample="new")[1]) == 2
    assert (
        len(_learn(five, base, "next", steps=3, resample="forecast")[1]) == 8
    )  # learned at a rate that moves everything


def test_other_score_settings_carry_nothing(five: Path, base: Base) -> None:
    concept = thing_concept("next", 201, "mug").photos(1, seed=1)
    sampled: list[Any] = []
    api.learn(
        five, concept, base=base, training=TrainingSettings(steps=0), score=EvalSettings(num_images=2),
        on_images=lambda one, images: sampled.append(one), resample="new",
    )  # fmt: skip
    assert len(sampled) == 7
