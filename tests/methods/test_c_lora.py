"""Closed forms of C-LoRA's equations, and the special case that must coincide with sequential LoRA."""

import pytest
import torch

from mnemon.adapters import Dense, LowRank
from mnemon.methods import Start, TrainedConcept
from mnemon.methods.c_lora import CLora, CLoraLearner
from mnemon.methods.lora import Lora
from mnemon.models import Base
from tests.contract.table import assert_same_learned, learn
from tests.tiny import tiny_sd_base


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(base: Base, method: CLora, earlier: list[TrainedConcept]) -> CLoraLearner:
    """A learner whose factors are not zero any more."""
    learner = method.begin(Start("mug", None, base, earlier, generator()))
    with torch.no_grad():
        for delta in learner.deltas().values():
            delta.up.normal_(0, 0.1, generator=generator())
    return learner


def random_past(base: Base, name: str, seed: int) -> TrainedConcept:
    """A concept with random factors of rank 2."""
    numbers = generator(seed)
    deltas = {
        target: LowRank(
            torch.randn(layer.out_features, 2, generator=numbers), torch.randn(2, layer.in_features, generator=numbers)
        )
        for target, layer in base.target_modules().items()
    }
    return TrainedConcept(name, None, deltas, {"text_encoder": torch.zeros(1, 32)})


def test_the_penalty_is_zero_for_the_first_concept(base: Base) -> None:
    assert begin(base, CLora(rank=2, forget_scale="sum"), []).regularization_loss().item() == 0


def test_the_past_is_the_sum_of_products(base: Base) -> None:
    earlier = [random_past(base, "rex", 1), random_past(base, "kiki", 2)]
    learner = begin(base, CLora(rank=2, forget_scale="sum"), earlier)
    assert learner.importance.keys() == base.target_modules().keys()
    for target, importance in learner.importance.items():
        ups, downs = zip(*((one.deltas[target].up, one.deltas[target].down) for one in earlier), strict=True)
        torch.testing.assert_close(importance, (ups[0] @ downs[0] + ups[1] @ downs[1]).square())
        assert not torch.allclose(importance, (sum(ups) @ sum(downs)).square(), atol=0.1)


def test_the_penalty_and_its_derivative(base: Base) -> None:
    """lambda || |P| (.) Delta ||^2 over all layers, and 2 lambda P^2 (.) Delta by Delta = A B."""
    rex = random_past(base, "rex", 1)
    learner = begin(base, CLora(rank=2, forget_scale="sum", forget_weight=10.0), [rex])
    expected = torch.zeros(())
    for target, delta in learner.deltas().items():
        past, change = rex.deltas[target].matrix().detach(), delta.matrix().detach()
        expected = expected + 10.0 * (past.abs() * change).square().sum()
        by_delta = 10.0 * 2 * past.square() * change
        by_up, by_down = torch.autograd.grad(learner.regularization_loss(), (delta.up, delta.down))
        torch.testing.assert_close(by_up, by_delta @ delta.down.T)
        torch.testing.assert_close(by_down, delta.up.T @ by_delta)
    torch.testing.assert_close(learner.regularization_loss(), expected)
    assert learner.regularization_loss().dtype == torch.float32


def test_the_penalty_is_elastic_weight_consolidation_with_importance_past_squared(base: Base) -> None:
    rex, target = random_past(base, "rex", 1), next(iter(base.target_modules()))
    learner = begin(
        base,
        CLora(rank=2, forget_scale="sum", forget_weight=1.0),
        [TrainedConcept("rex", None, {target: rex.deltas[target]}, {})],
    )
    before = base.target_modules()[target].weight + rex.deltas[target].matrix()
    after = before + learner.deltas()[target].matrix()
    importance = rex.deltas[target].matrix().square()
    torch.testing.assert_close(
        learner.regularization_loss(), (importance * (after - before).square()).sum(), rtol=1e-4, atol=0
    )


def test_a_tiny_penalty_keeps_its_digits_in_half_precision(base: Base) -> None:
    """|P| and Delta of 1e-4 give squares of 1e-16, which fp16 cannot hold."""
    target, layer = next(iter(base.target_modules().items()))
    small = Dense(torch.full(layer.weight.shape, 1e-4, dtype=torch.float16))
    learner = begin(
        base, CLora(rank=2, forget_scale="sum", forget_weight=1.0), [TrainedConcept("rex", None, {target: small}, {})]
    )
    with torch.no_grad():
        learner.deltas()[target].up.fill_(1e-4)
        learner.deltas()[target].down.fill_(0.5)
    torch.testing.assert_close(learner.regularization_loss().item(), 1e-16 * layer.weight.numel(), rtol=1e-2, atol=0)


def test_without_the_penalty_it_is_sequential_lora(base: Base) -> None:
    shared = {"rank": 2, "learning_rate": 1e-3, "num_vectors": 3, "steps": 4, "batch_size": 2}
    pairs = [_two(base, CLora(**shared, forget_weight=0.0)), _two(base, Lora(**shared, use_class_noun=False))]
    for left, right in zip(*pairs, strict=True):
        assert_same_learned(left, right)


def test_with_the_penalty_the_second_concept_differs_and_the_first_does_not(base: Base) -> None:
    shared = {"rank": 2, "steps": 4, "batch_size": 2}
    guarded, plain = (
        _two(base, CLora(**shared, forget_scale="sum", forget_weight=1e6)),
        _two(base, CLora(**shared, forget_weight=0.0)),
    )
    assert_same_learned(guarded[0], plain[0])
    target = next(iter(base.target_modules()))
    assert not torch.equal(guarded[1].deltas[target].matrix(), plain[1].deltas[target].matrix())


def _two(base: Base, method: Lora) -> list[TrainedConcept]:
    rex = learn(base, method, "rex")
    return [rex, learn(base, method, "kiki", [rex])]


def test_the_class_noun_is_left_out_by_default() -> None:
    assert CLora().prompt_name("rex", "dog") == "<rex>"
    assert CLora(use_class_noun=True).prompt_name("rex", "dog") == "<rex> dog"


def test_the_relative_penalty_has_no_unit(base: Base) -> None:
    """It is the mean change, where earlier concepts are, relative to the weights; how far those have gone is no
    matter."""
    penalties = []
    for size in (1.0, 1e-3):
        rex = random_past(base, "rex", seed=1)
        deltas = {target: LowRank(size * delta.up, delta.down) for target, delta in rex.deltas.items()}
        learner = begin(base, CLora(rank=2, forget_weight=1.0), [TrainedConcept("rex", None, deltas, {})])
        penalties.append(learner.regularization_loss())
    torch.testing.assert_close(penalties[0], penalties[1], rtol=1e-4, atol=0)
    changes = {target: delta.matrix() for target, delta in learner.deltas().items()}
    squares = {target: delta.matrix().square() for target, delta in deltas.items()}
    weighted = sum((squares[target] * changes[target].square()).sum() for target in changes)
    weights = torch.cat([layer.weight.flatten() for layer in base.target_modules().values()])
    expected = weighted / sum(one.sum() for one in squares.values()) / weights.square().mean()
    torch.testing.assert_close(penalties[1], expected, rtol=1e-4, atol=0)
