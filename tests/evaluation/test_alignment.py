"""Alignment and drift against values worked out by hand."""

import math

import pytest
import torch

from mnemon.evaluation.alignment import (
    clip_score,
    matched_cosines,
    mean_pairwise_cosine,
    multi_concept_alignment,
    self_similarity,
    zero_shot_drift,
)

AXES = torch.eye(3)


def test_alignment_is_the_mean_over_all_pairs_and_blind_to_length():
    images = torch.stack([AXES[0], 5 * AXES[1]])
    assert mean_pairwise_cosine(images, AXES[:1]) == pytest.approx(0.5)
    assert mean_pairwise_cosine(images, 3 * AXES) == pytest.approx(1 / 3)


def test_ceiling_leaves_a_photo_out_of_its_own_comparison():
    assert self_similarity(AXES) == pytest.approx(0)
    assert self_similarity(torch.stack([AXES[0], AXES[0], AXES[1]])) == pytest.approx(
        1 / 3
    )  # one pair of three is equal
    assert math.isnan(self_similarity(AXES[:1]))


def test_text_alignment_matches_image_and_prompt_by_row():
    texts = torch.stack([AXES[0], AXES[0], -AXES[2]])
    cosines = matched_cosines(AXES, texts)
    torch.testing.assert_close(cosines, torch.tensor([1.0, 0.0, -1.0]))
    assert clip_score(cosines) == pytest.approx(2.5 / 3)


def test_multi_concept_alignment_is_the_mean_over_the_concepts_of_the_prompt():
    both = (AXES[0] + AXES[1])[None]
    assert multi_concept_alignment(both, [AXES[:1], 4 * AXES[1:2]]) == pytest.approx(0.5**0.5)
    assert multi_concept_alignment(AXES[:1], [AXES[:1], AXES[1:]]) == pytest.approx(0.5)


def test_drift_is_half_of_what_is_missing_to_the_same_image():
    turned = torch.stack([AXES[0], AXES[1], -AXES[2]])
    assert zero_shot_drift(AXES, 3 * AXES) == pytest.approx(0)
    assert zero_shot_drift(AXES, turned) == pytest.approx(1 / 3)  # cosines 1, 1, -1
    assert zero_shot_drift(AXES, -AXES) == pytest.approx(1)
