"""Nearest concepts by hand, and attributes read off a judge's logits."""

import pytest
import torch

from mnemon.evaluation.attributes import attribute_accuracy, named_attributes
from mnemon.evaluation.confusion import confusion, nearest_concepts, recognised
from mnemon.evaluation.prompts import PROMPTS
from mnemon.world.things import NOUNS

AXES = torch.eye(3)


def test_a_image_belongs_to_the_concept_whose_mean_reference_points_its_way():
    references = [AXES[:1], 100 * torch.stack([AXES[0], AXES[1]])]  # lengths do not count, means do
    images = torch.stack([AXES[0], AXES[1], AXES[0] + AXES[1]])
    assert nearest_concepts(images, references).tolist() == [0, 1, 1]


def test_confusion_counts_shares_and_recognised_is_its_diagonal():
    shares = confusion([AXES[[0, 0, 1, 2]], AXES[[1]], AXES[[1, 2]]], [AXES[:1], AXES[1:2], AXES[2:]])
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.25, 0.25], [0, 1, 0], [0, 0.5, 0.5]], dtype=torch.float64))
    assert recognised(shares) == pytest.approx(2 / 3)


def test_prompts_of_the_world_name_their_attributes():
    known = {"noun": "cat", "colour": "orange", "pattern": "plain", "background": "in the snow"}
    assert named_attributes("a picture of an orange plain cat in the snow") == known
    assert named_attributes("a drawing of on the beach") == {"background": "on the beach"}
    assert all(named_attributes(prompt).keys() == known.keys() for prompt in PROMPTS["world"].control)


def test_attribute_accuracy_asks_only_for_what_is_named():
    prompts = [f"a red {NOUNS[0]}", f"a {NOUNS[1]} at night", "at night"]
    logits = {"noun": torch.eye(12)[[0, 0, 5]], "colour": torch.eye(10)[[0, 3, 3]], "present": torch.zeros(3, 12)}
    assert attribute_accuracy(logits, prompts) == {"noun": 0.5, "colour": 1.0}  # no head for backgrounds
