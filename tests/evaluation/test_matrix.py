"""The numbers derived from a score matrix, against the formulas worked out by hand."""

import numpy as np
import pytest

from mnemon.evaluation.matrix import (
    ScoreMatrix,
    backward_transfer,
    figures,
    final_average,
    forgetting_from_best,
    forgetting_from_first,
    forgetting_one_step,
    just_learned,
    last,
    learning_accuracy,
    learning_accuracy_of_first,
    learning_accuracy_of_last,
    matrix_from_rows,
    retention,
    retention_by_concept,
)

NAN = np.nan


def matrix(values) -> ScoreMatrix:
    array = np.array(values, float)
    names = tuple(f"thing-{j + 1}" for j in range(array.shape[1]))
    return ScoreMatrix(names, tuple(range(1, len(array) + 1)), array)


THREE = matrix([[0.8, NAN, NAN], [0.9, 0.6, NAN], [0.5, 0.3, 0.7]])


def test_numbers_of_three_concepts():
    assert final_average(THREE) == pytest.approx(1.5 / 3)
    assert learning_accuracy(THREE) == pytest.approx((0.8 + 0.6 + 0.7) / 3)
    assert forgetting_from_best(THREE) == pytest.approx((0.4 + 0.3) / 2)
    assert forgetting_from_first(THREE) == pytest.approx((0.3 + 0.3) / 2)
    assert backward_transfer(THREE) == pytest.approx(-0.3)
    # step 2: 0.8 - 0.9; step 3: mean of 0.9 - 0.5 and 0.6 - 0.3
    assert forgetting_one_step(THREE) == pytest.approx((-0.1 + 0.35) / 2)
    assert retention(THREE) == pytest.approx((0.5 / 0.8 + 0.3 / 0.6 + 1) / 3)


def steady(count: int, drop: float) -> ScoreMatrix:
    """Every concept is learned at 0.9 and loses `drop` at each later step."""
    t, j = np.indices((count, count))
    return matrix(np.where(t >= j, 0.9 - drop * (t - j), NAN))


@pytest.mark.parametrize("count", [2, 5, 12, 50])
def test_steady_forgetting_in_closed_form(count):
    drop = 0.01
    run = steady(count, drop)
    assert learning_accuracy(run) == pytest.approx(0.9)
    assert final_average(run) == pytest.approx(0.9 - drop * (count - 1) / 2)
    assert forgetting_from_best(run) == pytest.approx(drop * count / 2)
    assert forgetting_from_first(run) == pytest.approx(drop * count / 2)
    assert forgetting_one_step(run) == pytest.approx(drop)  # count / 2 times smaller: formulas do not compare
    assert retention(run) == pytest.approx(1 - drop * (count - 1) / 2 / 0.9)


def test_one_concept_has_nothing_to_forget():
    numbers = figures(matrix([[0.8]]))
    assert numbers["final_average"] == numbers["learning_accuracy"] == 0.8
    assert numbers["retention"] == 1
    assert all(value is None for name, value in numbers.items() if "forgetting" in name or "backward" in name)


def test_no_concept_has_no_numbers():
    assert set(figures(matrix_from_rows({}, "identity_alignment")).values()) == {None}


def test_what_was_never_learned_is_not_called_kept():
    run = matrix([[0.0, NAN], [0.4, 0.5]])
    assert np.isnan(retention_by_concept(run)[0])
    assert retention(run) == 1


def test_a_removed_concept_is_left_out_of_the_end():
    run = matrix([[0.8, NAN], [0.7, 0.6], [NAN, 0.5]])
    assert final_average(run) == 0.5
    assert forgetting_from_first(run) == pytest.approx(0.1)
    assert forgetting_one_step(run) == pytest.approx(0.1)


def test_rows_become_a_matrix_in_order_of_learning_and_of_number():
    """Twelve concepts: neither names nor states may be sorted as text."""
    names = [f"c{index}" for index in range(12)]
    rows = {
        t: {"concepts": {name: {"identity_alignment": t + index / 100} for index, name in enumerate(names[:t])}}
        for t in reversed(range(13))
    }
    found = matrix_from_rows(rows, "identity_alignment")
    assert found.names == tuple(names) and found.states == tuple(range(1, 13))
    np.testing.assert_allclose(just_learned(found), [index + 1 + index / 100 for index in range(12)])
    np.testing.assert_allclose(last(found), [12 + index / 100 for index in range(12)])
    assert np.isnan(found.values[np.triu_indices(12, 1)]).all()


def test_an_unmeasured_score_is_nan():
    found = matrix_from_rows({1: {"concepts": {"rex": {"identity_alignment": None}}}}, "identity_alignment")
    assert np.isnan(found.values).all()


def test_a_matrix_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="2 states"):
        ScoreMatrix(("rex",), (1, 2), np.zeros((1, 1)))


def partial(count: int, drop: float, points: tuple[int, ...]) -> ScoreMatrix:
    """`steady`, with whole rows at the points only and the diagonal always."""
    full = steady(count, drop)
    t, j = np.indices(full.values.shape)
    values = np.where(np.isin(t + 1, points) | (t == j), full.values, NAN)
    return ScoreMatrix(full.names, full.states, values, there=t >= j)


def test_what_the_diagonal_and_the_last_row_say_is_the_same_without_the_rest():
    known, whole = figures(partial(50, 0.01, (1, 10, 25, 50))), figures(steady(50, 0.01))
    missing = {name for name, value in known.items() if value is None}
    assert missing == {"forgetting_from_best", "forgetting_one_step"}
    assert all(value == pytest.approx(whole[name]) for name, value in known.items() if name not in missing)


def test_without_the_last_row_only_learning_is_known():
    numbers = figures(partial(12, 0.01, (1, 10)))
    known = {name for name, value in numbers.items() if value is not None}
    assert known == {"learning_accuracy", "learning_accuracy_first10", "learning_accuracy_last10"}


def test_a_whole_matrix_has_every_formula_whether_told_or_not():
    assert figures(partial(5, 0.1, (1, 2, 3, 4, 5))) == figures(steady(5, 0.1))


def test_a_hole_in_the_diagonal_is_not_filled_by_a_later_score():
    run = matrix([[NAN, NAN], [0.5, 0.6]])
    told = ScoreMatrix(run.names, run.states, run.values, there=np.tril(np.ones((2, 2), bool)))
    assert figures(told)["learning_accuracy"] is None and figures(told)["backward_transfer"] is None
    assert figures(told)["final_average"] == pytest.approx(0.55)


def test_the_first_and_the_last_ten_show_saturation():
    t, j = np.indices((25, 25))
    run = matrix(np.where(t >= j, 0.9 - 0.01 * j, NAN))
    assert learning_accuracy_of_first(run) == pytest.approx(0.9 - 0.045)
    assert learning_accuracy_of_last(run) == pytest.approx(0.9 - 0.195)
    assert learning_accuracy_of_first(THREE) == learning_accuracy_of_last(THREE) == learning_accuracy(THREE)
