"""Gradient checkpointing: for every method, on a U-Net and on a transformer, bit for bit what is learned without."""

from dataclasses import replace
from functools import cache

import pytest

from mnemon.methods import METHODS, Method
from mnemon.models import Base
from mnemon.training import Examples, TrainingSettings, train
from tests.contract.table import assert_same_learned, small, task
from tests.tiny import tiny_sd_base
from tests.tiny_transformers import tiny_base


@cache
def base_of(kind: str) -> Base:
    return tiny_sd_base() if kind == "U-Net" else tiny_base("flux")


def learn(base: Base, method: Method, on: bool) -> list:
    """Two concepts, the second on top of the first or both together, with images for all that methods look at. Two
    steps: Adam's first one follows the gradient's signs alone."""
    general = Examples(task(base, method, "mug").examples.latents, ["a mug", "a cat on the beach", "a car"])
    first, second = (replace(task(base, method, name), calibration=general) for name in ("rex", "kiki"))
    settings = TrainingSettings(steps=2, gradient_checkpointing=on)
    if method.trains_jointly:
        return train(base, method, [first, second], settings=settings)
    earlier = train(base, method, [first], settings=settings)
    return earlier + train(base, method, [replace(second, prior=general)], earlier, settings)


@pytest.mark.parametrize("kind", ["U-Net", "transformer"])
@pytest.mark.parametrize("name", METHODS)
def test_checkpointing_changes_nothing_that_is_learned(name: str, kind: str) -> None:
    base, method = base_of(kind), small(name)
    if method.static_text_features and not base.static_text_features:
        pytest.skip("this method needs text that stays the same from layer to layer")
    for one, other in zip(*(learn(base, method, on) for on in (False, True)), strict=True):
        assert_same_learned(one, other)
