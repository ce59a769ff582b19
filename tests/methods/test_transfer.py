"""How a concept of FL2T uses the factors of others: what reaches its change, whom its photos train, what is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon.adapters import LowRank
from mnemon.methods import Start, TrainedConcept
from mnemon.methods.fl2t import Fl2t, Fl2tLearner
from mnemon.methods.transfer import Mixed, mixture, truncated
from mnemon.models import Base
from mnemon.training import TrainingSettings, train
from tests.contract.table import assert_same_learned, task
from tests.tiny import tiny_sd_base

SHORT: dict[str, Any] = {"rank": 2, "steps": 6, "batch_size": 2}
KINDS = ["start", "add", "shared"]


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


@pytest.fixture(scope="module")
def earlier(base: Base) -> list[TrainedConcept]:
    return together(base, Fl2t(**SHORT), ["rex"])


def together(
    base: Base, method: Fl2t, names: Sequence[str], earlier: Sequence[TrainedConcept] = (), **more: Any
) -> list[TrainedConcept]:
    return train(base, method, [task(base, method, name) for name in names], earlier, **more)


def joint(base: Base, method: Fl2t, earlier: Sequence[TrainedConcept]) -> list[Fl2tLearner]:
    """Learners of a hat and a mug whose factors are not zero any more, at the beginning of step 2."""
    numbers = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    starts = [Start(name, None, base, earlier, one) for name, one in zip(("hat", "mug"), numbers, strict=True)]
    learners = method.begin_together(starts)
    for learner, generator in zip(learners, numbers, strict=True):
        with torch.no_grad():
            for delta in learner.deltas().values():
                delta.up.normal_(0, 0.1, generator=generator)
    learners[0].begin_joint_stage()
    return learners


def expected(learners: Sequence[Fl2tLearner], earlier: Sequence[TrainedConcept], target: str) -> torch.Tensor:
    """A_g B_g + sum_i s lambda_gi / (G - 1) A_i B_i of the hat, whose others are the mug and rex."""
    hat, mug = learners
    (weights, _) = hat.all_relevances()
    assert hat.concepts.names == ["hat", "mug", "rex"] and weights[0] == 0
    changes = [one.deltas[target].matrix() for one in earlier]
    own, other = (delta.up @ delta.down for delta in (one.deltas()[target] for one in (hat, mug)))
    return own + hat.method.transfer_weight / 2 * (weights[1] * other + weights[2] * changes[0])


@pytest.mark.parametrize("kind", ["add", "shared"])
def test_the_change_is_the_relevance_weighted_sum(base: Base, earlier: list[TrainedConcept], kind: str) -> None:
    learners = joint(base, Fl2t(**SHORT, transfer=kind, transfer_weight=0.7), earlier)
    learners[0].before_step(torch.Generator())
    for target, delta in learners[0].deltas().items():
        torch.testing.assert_close(delta.matrix(), expected(learners, earlier, target))
        inputs = torch.randn(3, delta.shape[1], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(delta(inputs), inputs @ delta.matrix().T)


@pytest.mark.parametrize("kind", ["add", "shared"])
def test_a_concept_trains_the_others_factors_only_if_they_are_shared(
    base: Base, earlier: list[TrainedConcept], kind: str
) -> None:
    hat, mug = joint(base, Fl2t(**SHORT, transfer=kind), earlier)
    hat.before_step(torch.Generator())
    sum(delta.matrix().square().sum() for delta in hat.deltas().values()).backward()
    assert all(delta.up.grad.any() for delta in hat.deltas().values())
    reached = [delta.up.grad is not None and bool(delta.up.grad.any()) for delta in mug.deltas().values()]
    assert all(reached) if kind == "shared" else not any(reached)


def test_a_start_goes_on_from_the_nearest_sum_of_its_rank(base: Base, earlier: list[TrainedConcept]) -> None:
    learners = joint(base, Fl2t(**SHORT, transfer="start"), earlier)
    sums = {target: expected(learners, earlier, target).detach() for target in learners[0].deltas()}
    learners[0].before_step(torch.Generator())
    assert all(delta.mixture is None for delta in learners[0].deltas().values())
    learners[0].after_step(0.5)
    for target, delta in learners[0].deltas().items():
        left = torch.linalg.svdvals(sums[target] - delta.matrix())
        torch.testing.assert_close(left[0], torch.linalg.svdvals(sums[target])[2])  # Eckart and Young, rank 2
    before = [delta.matrix() for delta in learners[0].deltas().values()]
    learners[0].after_step(0.5)  # once
    assert all(map(torch.equal, before, [delta.matrix() for delta in learners[0].deltas().values()]))


def test_a_mixture_is_the_weighted_sum_of_products() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, ups, downs = (torch.randn(*shape, generator=generator) for shape in ((3,), (3, 5, 2), (3, 2, 4)))
    torch.testing.assert_close(mixture(weights, ups, downs), torch.einsum("g,gdr,grk->dk", weights, ups, downs))


def test_truncated_factors_give_the_matrix_back_where_its_rank_allows() -> None:
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(3, 8, generator=generator)
    matrix = torch.randn(6, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    up, new = truncated(matrix, down)
    torch.testing.assert_close(up @ new, matrix)
    torch.testing.assert_close(new.norm(dim=1), down.norm(dim=1).mean().expand(3))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_has_the_same_size_and_is_not_what_is_learned_alone(base: Base, kind: str) -> None:
    """Relevance reaches the change; and the stored factors are the nearest to it, not A_g B_g."""
    apart = together(base, Fl2t(**SHORT), ["hat", "mug"])
    joined = together(base, Fl2t(**SHORT, transfer=kind), ["hat", "mug"])
    for left, right in zip(apart, joined, strict=True):
        assert left.stored_bytes == right.stored_bytes
        for target, delta in left.deltas.items():
            assert not torch.allclose(delta.matrix(), right.deltas[target].matrix(), atol=1e-4)
    doubled = together(base, Fl2t(**SHORT, transfer=kind, transfer_weight=1.0), ["hat", "mug"])
    assert not torch.allclose(*(one[0].deltas[target].matrix() for one in (joined, doubled)), atol=1e-4)


def test_a_frozen_copy_is_the_nearest_of_its_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (
        Mixed(LowRank(torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator))) for _ in "ab"
    )
    one.mixture = two.matrix().detach()
    left = torch.linalg.svdvals(one.matrix() - one.frozen_copy().matrix())
    torch.testing.assert_close(left[0], torch.linalg.svdvals(one.matrix())[2])
    assert one.frozen_copy().rank == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_concepts_changes_nothing_and_the_first_alone_is_as_without(base: Base, kind: str) -> None:
    method = Fl2t(**SHORT, transfer=kind)
    straight = together(base, method, ["mug", "hat"])
    for left, right in zip(straight, together(base, method, ["hat", "mug"])[::-1], strict=True):
        assert_same_learned(left, right)
    assert_same_learned(together(base, method, ["mug"])[0], together(base, Fl2t(**SHORT), ["mug"])[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("killed", [2, 4, 5])
def test_a_transfer_goes_on_after_a_kill(
    tmp_path: Path, base: Base, earlier: list[TrainedConcept], kind: str, killed: int
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == killed:
            raise KeyboardInterrupt

    method = Fl2t(**SHORT, transfer=kind)
    settings = TrainingSettings(checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        together(base, method, ["mug", "hat"], earlier, settings=settings, folder=tmp_path, on_step=stop)
    resumed = together(base, method, ["mug", "hat"], earlier, settings=settings, folder=tmp_path)
    for left, right in zip(resumed, together(base, method, ["mug", "hat"], earlier), strict=True):
        assert_same_learned(left, right)
