"""The maximum mean discrepancy against values worked out by hand and against torchmetrics'."""

import math

import pytest
import torch

from mnemon.evaluation.mmd import a_mmd, f_mmd, kernel_scaled, kid, mmd_squared

AXES = torch.eye(3)


def test_mmd_with_the_quadratic_kernel_in_closed_form():
    # d = 2; x = {e1, e1}, y = {e2, e2}: k = (1/2 + 1)² = 2.25 within, (0 + 1)² = 1 across.
    x, y = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 2)
    assert mmd_squared(x, y) == pytest.approx(2.25 + 2.25 - 2)


def test_mmd_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    draws = [mmd_squared(*torch.randn(2, 8, 4, generator=generator)) for _ in range(400)]
    assert min(draws) < 0 < max(draws)
    assert abs(sum(draws) / len(draws)) < 0.03


def test_mmd_needs_two_images():
    with pytest.raises(ValueError, match="at least two"):
        mmd_squared(AXES[:1], AXES)


def test_a_mmd_counts_every_concept_and_f_mmd_all_but_the_last():
    same, other = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 2)
    assert a_mmd([same, same], [other, same]) == pytest.approx(1.25)
    assert f_mmd([same, same, same], [other, same, other]) == pytest.approx(1.25)


def test_f_mmd_of_one_concept_is_none():
    same = torch.tensor([[1.0, 0.0]] * 2)
    assert math.isnan(f_mmd([same], [same]))


def test_kid_has_the_cubic_kernel():
    x, y = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 2)
    assert kid(x, y) == pytest.approx(2 * 1.5**3 - 2)


def test_mmd_is_that_of_torchmetrics():
    """Values of torchmetrics 1.9.0, image.kid.poly_mmd(x, y, degree=2 and 3), which wants sets of equal size."""
    x = torch.arange(12, dtype=torch.float64).view(3, 4) / 10
    y = torch.sin(torch.arange(12, dtype=torch.float64)).view(3, 4)
    assert mmd_squared(x, y) == pytest.approx(0.08438739888647673, abs=1e-12)
    assert kid(x, y) == pytest.approx(0.2740335954068587, abs=1e-12)


def test_sets_may_be_of_unequal_size():
    """A set and the same set twice over. The kernel is 4 for equal rows and 1 for others, whatever their length."""
    x = kernel_scaled(5 * AXES)  # (cosine + 1)²
    assert mmd_squared(x, x.repeat(2, 1)) == pytest.approx(1 + (6 * 4 + 24 * 1) / 30 - 2 * (4 + 1 + 1) / 3)


def test_paired_images_are_not_compared_with_one_another():
    drawn = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert mmd_squared(drawn, drawn) < -0.1
    assert mmd_squared(drawn, drawn, paired=True) == pytest.approx(0, abs=1e-12)
    assert f_mmd([drawn, drawn], [drawn, -drawn], paired=True) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="6 images cannot be paired with 5"):
        mmd_squared(drawn, drawn[:5], paired=True)
