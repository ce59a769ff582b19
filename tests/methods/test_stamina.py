"""Closed forms of the paper's equations, and the special cases that must coincide with other methods."""

import pytest
import torch

from mnemon.adapters import Dense, LowRank, MaskedLowRank, Product, merge
from mnemon.methods import Method, Start, TrainedConcept, masked_stack
from mnemon.methods.lora import Lora
from mnemon.methods.stamina import Stamina, StaminaLearner
from mnemon.models import Base
from tests.contract.table import learn, predict
from tests.tiny import tiny_sd_base

SMALL = {"rank": 2, "mask_rank": 2, "token_hidden": 8, "steps": 4, "batch_size": 2, "sparsity_weight": 0.0}
SMALL |= {"sparsity": "penalty", "forget_scale": "sum", "mask_unit": "entry"}  # the plain equations


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_sd_base()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def begin(base: Base, method: Method, earlier: list[TrainedConcept]) -> StaminaLearner:
    """A learner whose factors are not zero any more."""
    learner = method.begin(Start("kiki", "dog", base, earlier, generator()))
    assert isinstance(learner, StaminaLearner)
    with torch.no_grad():
        for stack in learner.stacks:
            stack.a.normal_(0, 0.1, generator=generator())
    return learner


def past(base: Base, value: float = 1.0) -> TrainedConcept:
    deltas = {s: Dense(torch.full(layer.weight.shape, value)) for s, layer in base.target_modules().items()}
    return TrainedConcept("rex", "dog", deltas, {"text_encoder": torch.zeros(1, 32)})


def test_the_penalty_is_zero_for_the_first_concept(base: Base) -> None:
    learner = begin(base, Stamina(**SMALL), [])
    learner.before_step(generator())
    assert learner.regularization_loss().item() == 0


def test_the_penalty_is_the_weighted_square_of_past_times_delta(base: Base) -> None:
    rex, kiki = past(base, 0.5), past(base, -2.0)
    learner = begin(base, Stamina(**SMALL, forget_weight=10.0), [rex, kiki])
    learner.before_step(generator())
    deltas = {target: delta.matrix() for target, delta in learner.deltas().items()}
    expected = 10.0 * sum((1.5 * delta).square().sum() for delta in deltas.values())
    torch.testing.assert_close(learner.regularization_loss(), expected)
    assert learner.regularization_loss().dtype == torch.float32
    gradients = torch.autograd.grad(learner.regularization_loss(), list(deltas.values()), allow_unused=True)
    for gradient, delta in zip(gradients, deltas.values(), strict=True):
        if gradient is not None:
            torch.testing.assert_close(gradient, 10.0 * 2 * 1.5**2 * delta)


def test_the_relative_penalty_is_the_mean_change_where_earlier_concepts_are_relative_to_the_weights(base: Base) -> None:
    method = Stamina(**SMALL | {"forget_scale": "relative"}, forget_weight=3.0)
    for value in (0.5, 1e-4):  # how far earlier concepts have moved the weights does not count, only where
        learner = begin(base, method, [past(base, value)])
        learner.before_step(generator())
        change = torch.cat([delta.matrix().flatten() for delta in learner.deltas().values()])
        weights = torch.cat([layer.weight.flatten() for layer in base.target_modules().values()])
        expected = 3.0 * change.square().mean() / weights.square().mean()
        torch.testing.assert_close(learner.regularization_loss(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("forget", "felt"), [("masked", True), ("factors", False)])
def test_the_gates_may_be_kept_from_feeling_the_penalty(base: Base, forget, felt: bool) -> None:
    learner = begin(base, Stamina(**SMALL, forget=forget), [past(base)])
    learner.before_step(generator())
    learner.regularization_loss().backward()
    for stack in learner.stacks:
        assert stack.a.grad.any() and (stack.logits.u.grad is not None and stack.logits.u.grad.any()) == felt


def test_the_penalty_may_begin_late(base: Base) -> None:
    learner = begin(base, Stamina(**SMALL, forget_start=0.5), [past(base)])
    learner.before_step(generator())
    assert learner.regularization_loss().item() == 0
    learner.latest = 0.5
    assert learner.regularization_loss().item() > 0


@pytest.mark.parametrize("learning_rate", [1e-4, 2e-3])
@pytest.mark.parametrize("mask", ["sigmoid_st", "gumbel_st"])
def test_a_held_density_is_reached_at_every_rate(base: Base, learning_rate: float, mask) -> None:
    settings = SMALL | {"sparsity": "density", "density": 0.1, "learning_rate": learning_rate}
    kept = learn(base, Stamina(**settings, mask=mask), "kiki")
    assert kept.facts["mask_density"] == pytest.approx(0.1, abs=1e-3)
    changed = torch.cat([delta.matrix().flatten() for delta in kept.deltas.values()]) != 0
    assert changed.float().mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("unit", "axis"), [("row", 1), ("column", 0)])
def test_gates_of_whole_rows_or_columns(base: Base, unit, axis: int) -> None:
    kept = learn(base, Stamina(**SMALL | {"sparsity": "density", "density": 0.25, "mask_unit": unit}), "kiki")
    for delta in kept.deltas.values():
        shut = delta.matrix() == 0
        assert isinstance(delta, LowRank) and torch.equal(shut.all(axis), shut.any(axis))
    assert kept.facts["mask_density"] == pytest.approx(0.25, abs=0.02)


def test_without_the_penalty_there_is_none(base: Base) -> None:
    learner = begin(base, Stamina(**SMALL, forget="none"), [past(base)])
    learner.before_step(generator())
    assert learner.regularization_loss().item() == 0


def test_the_sparsity_term_is_the_mean_gate(base: Base) -> None:
    learner = begin(base, Stamina(**{**SMALL, "sparsity_weight": 0.75}, forget="none"), [past(base)])
    learner.before_step(generator())
    gates = torch.cat([stack.noisy.sigmoid().flatten() for stack in learner.stacks])
    torch.testing.assert_close(learner.regularization_loss(), 0.75 * gates.mean())


def test_a_delta_is_the_product_under_its_mask(base: Base) -> None:
    learner = begin(base, Stamina(**SMALL, mask="gumbel_st"), [])
    learner.before_step(generator())
    for stack in learner.stacks:
        for index, target in enumerate(stack.target_modules):
            product, delta = stack.a[index] @ stack.b[index], learner.deltas()[target].matrix()
            shut = delta == 0
            assert 0 < shut.float().mean() < 0.5  # 1 - sigmoid(2) = 12 % at the start
            torch.testing.assert_close(delta[~shut], product[~shut])


def test_the_mask_gets_no_gradient_while_the_product_is_zero(base: Base) -> None:
    learner = Stamina(**SMALL).begin(Start("kiki", None, base, [], generator()))
    learner.before_step(generator())
    sum(delta.matrix().sum() for delta in learner.deltas().values()).backward()
    for name, parameter in learner.stacks.named_parameters():
        assert parameter.grad.any() == name.endswith(".a"), name


def test_evaluation_mode_prepares_what_is_stored_and_samples_nothing(base: Base) -> None:
    learner = begin(base, Stamina(**SMALL, b0=0.0), []).eval()
    numbers = generator()
    state = numbers.get_state()
    learner.before_step(numbers)
    assert torch.equal(state, numbers.get_state())
    kept = learner.export()
    for target, delta in learner.deltas().items():
        assert isinstance(kept.deltas[target], MaskedLowRank)
        torch.testing.assert_close(kept.deltas[target].matrix(), delta.matrix())
    assert 0.2 < kept.facts["mask_density"] < 0.8


@pytest.mark.parametrize("mask", ["none", "soft", "sigmoid_st", "gumbel_st"])
@pytest.mark.parametrize("param", ["factor_mlp", "factor_linear"])
def test_every_switch_trains_and_merges_to_what_evaluation_shows(base: Base, mask, param) -> None:
    method = Stamina(**SMALL, mask=mask, mask_param=param, token="vector", use_class_noun=False)
    earlier = [past(base, 0.01)]
    learner = begin(base, method, earlier).eval()
    learner.before_step(generator())
    kept = learner.export()
    for target, delta in learner.deltas().items():
        torch.testing.assert_close(kept.deltas[target].matrix(), delta.matrix())
    assert learn(base, method, "kiki", earlier).tokens.keys() == {"text_encoder"}


@pytest.mark.parametrize("token", ["mlp", "vector"])
def test_the_token_starts_near_the_noun_and_at_random_without_one(base: Base, token) -> None:
    method = Stamina(**SMALL, token=token)
    start = {
        class_noun: method.begin(Start("rex", class_noun, base, [], generator())).tokens()
        for class_noun in ("dog", None)
    }
    dog = base.word_embeddings("dog")["text_encoder"].expand(3, -1)
    near = 0.1 * dog.std()
    assert (start["dog"]["text_encoder"] - dog).abs().max() < near
    assert (start[None]["text_encoder"] - dog).abs().max() > near


def test_without_mask_mlp_penalty_and_noun_it_is_sequential_lora(base: Base) -> None:
    shared = {"rank": 2, "learning_rate": 1e-3, "num_vectors": 3, "steps": 4, "batch_size": 2}
    plain = Stamina(**shared, mask="none", token="vector", forget="none")
    for left, right in zip(_two(base, plain, None), _two(base, Lora(**shared), None), strict=True):
        torch.testing.assert_close(left.tokens, right.tokens)
        for target, delta in left.deltas.items():
            torch.testing.assert_close(delta.matrix(), right.deltas[target].matrix(), atol=1e-6, rtol=1e-4)


def _two(base: Base, method: Method, class_noun: str | None = "dog") -> list[TrainedConcept]:
    rex = learn(base, method, "rex", class_noun=class_noun)
    return [rex, learn(base, method, "kiki", [rex], class_noun=class_noun)]


def test_past_is_what_was_merged_into_the_base(base: Base) -> None:
    method = Stamina(**SMALL)
    two = _two(base, method)
    before = {target: layer.weight.clone() for target, layer in base.target_modules().items()}
    learner = begin(base, method, two)
    with merge(base.target_modules(), method.compose(base, two)):
        for stack in learner.stacks:
            for target, summed in zip(stack.target_modules, stack.past, strict=True):
                torch.testing.assert_close(
                    summed, base.target_modules()[target].weight - before[target], atol=1e-6, rtol=0
                )


@pytest.mark.parametrize("mask", ["gumbel_st", "none"])
def test_the_penalty_clears_what_earlier_concepts_use_and_leaves_the_rest(base: Base, mask) -> None:
    """The loss pulls every entry to 0.1; earlier concepts use the upper half of the first layer."""
    target, layer = next(iter(base.target_modules().items()))
    half = layer.out_features // 2
    used = torch.zeros(layer.weight.shape)
    used[:half] = 1.0
    rex = TrainedConcept("rex", None, {target: Dense(used)}, {})
    method = Stamina(rank=2, forget_weight=1.0, mask=mask, sparsity="penalty", forget_scale="sum", mask_unit="entry")
    learner = method.begin(Start("kiki", None, base, [rex], generator()))
    optimizer = torch.optim.Adam(learner.parameter_groups())
    numbers = generator()
    for _ in range(300):
        learner.before_step(numbers)
        pull = sum((delta.matrix() - 0.1).square().sum() for delta in learner.deltas().values())
        (0.01 * pull + learner.regularization_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
    kept = learner.export().deltas[target].matrix()
    assert kept[:half].square().mean() < 0.02 * kept[half:].square().mean()
    assert kept[half:].mean() > 0.05


def test_what_it_learned_depends_on_the_earlier_concepts_only_through_the_model(base: Base) -> None:
    """An earlier concept whose deltas are zero changes nothing but that its token is known."""
    zero = past(base, 0.0)
    alone, after = learn(base, Stamina(**SMALL), "kiki"), learn(base, Stamina(**SMALL), "kiki", [zero])
    for target, delta in alone.deltas.items():
        assert torch.equal(delta.matrix(), after.deltas[target].matrix())
    assert predict(base, ["a dog"]).isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"forget": "factors"}, {"mask": "none"}, {"mask": "soft"}], ids=str)
def test_large_modules_stay_in_factors_and_learn_the_same(
    base: Base, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    method = Stamina(rank=2, mask_rank=2, token_hidden=8, **settings)  # type: ignore[arg-type]

    def computed(large: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        # 0.25 is exact in bf16, in which large modules keep it
        monkeypatch.setattr(masked_stack, "LARGE", large)
        learner = begin(base, method, [past(base, 0.25)])
        learner.progress.fill_(0.4)
        learner.before_step(generator())
        loss = 100 * learner.regularization_loss()
        for delta in learner.deltas().values():
            assert isinstance(delta, Product) == (large == 0)
            inputs = torch.randn(3, delta.shape[1], generator=generator())
            loss = loss + delta(inputs).square().sum()
        parameters = [one for group in learner.parameter_groups()[::2] for one in group["params"]]
        return loss, list(torch.autograd.grad(loss, parameters))

    (loss, gradients), (expected, others) = computed(0), computed(2**24)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5)
