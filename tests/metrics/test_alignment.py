"""Alignment and MMD against values worked out by hand."""

import math

import pytest
import torch

from mnemon.metrics.alignment import (
    a_mmd,
    ceiling,
    clip_score,
    f_mmd,
    matched_cosines,
    mean_pairwise_cosine,
    mmd_squared,
)

AXES = torch.eye(3)


def test_alignment_is_the_mean_over_all_pairs_and_blind_to_length():
    pictures = torch.stack([AXES[0], 5 * AXES[1]])
    assert mean_pairwise_cosine(pictures, AXES[:1]) == pytest.approx(0.5)
    assert mean_pairwise_cosine(pictures, 3 * AXES) == pytest.approx(1 / 3)


def test_ceiling_leaves_a_photo_out_of_its_own_comparison():
    assert ceiling(AXES) == pytest.approx(0)
    assert ceiling(torch.stack([AXES[0], AXES[0], AXES[1]])) == pytest.approx(1 / 3)  # one pair of three is equal
    assert math.isnan(ceiling(AXES[:1]))


def test_text_alignment_matches_picture_and_prompt_by_row():
    texts = torch.stack([AXES[0], AXES[0], -AXES[2]])
    cosines = matched_cosines(AXES, texts)
    torch.testing.assert_close(cosines, torch.tensor([1.0, 0.0, -1.0]))
    assert clip_score(cosines) == pytest.approx(2.5 / 3)


def test_mmd_with_the_quadratic_kernel_in_closed_form():
    # d = 2; x = {e1, e1}, y = {e2, e2}: k = (1/2 + 1)² = 2.25 within, (0 + 1)² = 1 across.
    x, y = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 2)
    assert mmd_squared(x, y) == pytest.approx(2.25 + 2.25 - 2)


def test_mmd_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    draws = [mmd_squared(*torch.randn(2, 8, 4, generator=generator)) for _ in range(400)]
    assert min(draws) < 0 < max(draws)
    assert abs(sum(draws) / len(draws)) < 0.03


def test_mmd_needs_two_pictures():
    with pytest.raises(ValueError, match="at least two"):
        mmd_squared(AXES[:1], AXES)


def test_a_mmd_counts_every_concept_and_f_mmd_all_but_the_last():
    same, other = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 2)
    assert a_mmd([same, same], [other, same]) == pytest.approx(1.25)
    assert f_mmd([same, same, same], [other, same, other]) == pytest.approx(1.25)
