"""Closed forms of R1 and R2, and what they do to the second concept."""

import pytest
import torch

from mnemon.methods import Start, TrainedConcept
from mnemon.methods.cidm import Cidm, CidmLearner, CommonSubspace
from mnemon.methods.overlap import overlaps
from mnemon.models import Base
from tests.contract.table import assert_same_learned, learn
from tests.methods.test_c_lora import random_past
from tests.tiny import tiny_sd_base


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def begin(base: Base, method: Cidm, earlier: list[TrainedConcept], start: float = 0.1) -> CidmLearner:
    learner = method.begin(Start("mug", None, base, earlier, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for number, delta in enumerate(learner.deltas().values()):
            delta.up.copy_(start * randn(*delta.up.shape, seed=number))
    return learner


def two(base: Base) -> list[TrainedConcept]:
    return [random_past(base, "rex", 1), random_past(base, "kiki", 2)]


def test_the_first_concept_has_no_regulariser(base: Base) -> None:
    assert begin(base, Cidm(rank=2, shared_weight=1.0, ones=True), []).regularization_loss().item() == 0


def test_r1_is_the_mean_of_absolute_inner_products(base: Base) -> None:
    earlier, learner = two(base), begin(base, Cidm(rank=2, specific_weight=3.0), two(base))
    entries = [
        (one.deltas[target].up @ delta.up.T).abs().mean()
        for one in earlier
        for target, delta in learner.deltas().items()
    ]
    torch.testing.assert_close(learner.regularization_loss(), 3.0 * torch.stack(entries).mean())


def test_r1_pulls_towards_ones_if_asked_for(base: Base) -> None:
    plain, pulled = (begin(base, Cidm(rank=2, ones=ones), two(base)) for ones in (False, True))
    squares = torch.stack([(delta.up - 1).square().mean() for delta in plain.deltas().values()])
    torch.testing.assert_close(pulled.regularization_loss() - plain.regularization_loss(), 0.1 * squares.mean())


@pytest.mark.parametrize("how", ["absolute", "square", "signed", "gram"])
def test_overlaps_and_their_derivative(how: str) -> None:
    own, others = randn(7, 3).requires_grad_(), randn(4, 7, 3, seed=1)
    products = torch.stack([other.T @ own if how == "gram" else other @ own.T for other in others])
    entries = {"square": products.square(), "signed": products}.get(how, products.abs())
    weights = randn(4, seed=2)  # as FL2T weighs concepts
    expected = entries.mean((1, 2))
    found = overlaps(own, others, how)
    torch.testing.assert_close(found, expected)
    (by_own,), (expected_by_own,) = (torch.autograd.grad(weights @ value, own) for value in (found, expected))
    torch.testing.assert_close(by_own, expected_by_own)


@pytest.mark.parametrize("how", ["absolute", "square", "gram", "relative"])
def test_a_change_that_is_not_there_is_left_alone(how: str) -> None:
    own = torch.zeros(7, 3, requires_grad=True)
    overlaps(own, randn(4, 7, 3), how).sum().backward()
    assert not own.grad.any()


def test_gram_is_zero_for_orthogonal_columns_and_the_printed_form_is_not() -> None:
    basis = torch.linalg.qr(randn(8, 8))[0]
    own, others = basis[:, :3], basis[None, :, 3:6]
    assert overlaps(own, others, "gram") < 1e-6 and overlaps(own, others, "absolute") > 0.01


def test_the_relative_overlap_is_a_share_that_no_scale_changes() -> None:
    basis = torch.linalg.qr(randn(8, 8))[0]
    own, others = basis[:, :3], torch.stack([basis[:, :3], basis[:, 3:6], basis[:, [0, 4, 5]]])
    torch.testing.assert_close(overlaps(own, others, "relative"), torch.tensor([1.0, 0.0, 1 / 3]))
    own, others = randn(7, 3), randn(4, 7, 3, seed=1)
    torch.testing.assert_close(overlaps(own, others, "relative"), overlaps(1e-3 * own, 50 * others, "relative"))


def test_the_second_half_of_a_step_lowers_r2_and_the_printed_sign_raises_it() -> None:
    change, values = randn(6, 5), {}
    for learning_rate in (1e-2, -1e-2):
        subspace = CommonSubspace(randn(3, 6, 5, seed=1))
        values[learning_rate] = [subspace.total(change).item()]
        for _ in range(5):
            subspace.step(change, learning_rate)
            values[learning_rate].append(subspace.total(change).item())
    assert values[1e-2] == sorted(values[1e-2], reverse=True)
    assert values[-1e-2] == sorted(values[-1e-2])


def test_the_step_of_r2_follows_its_derivatives() -> None:
    change, subspace = randn(6, 5), CommonSubspace(randn(3, 6, 5, seed=1))
    shared, projections = (t.clone().requires_grad_() for t in (subspace.shared, subspace.projections))
    errors = torch.cat([subspace.past, change[None]]) - projections @ shared
    by_shared, by_projections = torch.autograd.grad(errors.square().sum(), (shared, projections))
    subspace.step(change, 0.1)
    torch.testing.assert_close(subspace.shared, shared.detach() - 0.1 * by_shared)
    torch.testing.assert_close(subspace.projections, projections.detach() - 0.1 * by_projections)


def test_r2_pulls_the_change_and_is_off_by_default(base: Base) -> None:
    shared = begin(base, Cidm(rank=2, learning_rate=1e-4, specific_weight=0.0, shared_weight=2.0), two(base))
    before = shared.regularization_loss()
    expected = sum(
        (delta.matrix() - torch.stack([one.deltas[target].matrix() for one in two(base)]).mean(0)).square().sum()
        for target, delta in shared.deltas().items()
    )
    torch.testing.assert_close(before, 2.0 * expected)
    shared.after_step(0.5)
    assert shared.regularization_loss() < before
    off = begin(base, Cidm(rank=2, specific_weight=0.0), two(base))
    assert off.regularization_loss().item() == 0 and not list(off.buffers())


def test_concepts_are_learned_on_the_bare_base(base: Base) -> None:
    """Without regularisers the second concept is what it would be alone; with them it is not."""
    settings = {"rank": 2, "steps": 4, "batch_size": 2}
    free, guarded = Cidm(**settings, specific_weight=0.0), Cidm(**settings, specific_weight=100.0)
    rex, alone = learn(base, free, "rex"), learn(base, free, "kiki")
    assert_same_learned(learn(base, free, "kiki", [rex]), alone)
    changed = learn(base, guarded, "kiki", [rex])
    target = next(iter(base.target_modules()))
    assert changed.deltas[target].up.abs().mean() < alone.deltas[target].up.abs().mean()
