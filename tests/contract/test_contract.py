"""What every method must hold to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnemon.adapters import attach, fold, load_deltas, save_deltas
from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.methods import Learned, Method, method_from, method_settings
from mnemon.models import Base
from mnemon.sampling import Composed
from mnemon.training import discard_snapshot
from tests.contract.table import TOKEN_ONLY, assert_same_deltas, assert_same_learned, hooks, learn, predict, weights

ROOT = Path(__file__).parents[2]
PROMPTS = ["a photo of a dog", "a red mug", "a blue cat on the beach"]


def library_of(path: Path, base: Base, method: Method, learned: list[Learned]) -> Library:
    library = Library.create(path, base, method)
    for one in learned:
        library.commit(one)
    return library


def test_a_concept_changes_what_its_token_draws(base: Base, method: Method, two: list[Learned]) -> None:
    untrained = learn(base, method, "kiki", two[:1], steps=0)
    said = []
    for last in (untrained, two[1]):
        with Composed(base, method, [two[0], last]):
            said.append(predict(base, [f"a photo of {method.prompt_name('kiki', 'dog')}"]))
    assert not torch.equal(*said)


def test_a_concept_changes_what_the_base_draws_if_it_changes_weights(
    base: Base, method: Method, two: list[Learned]
) -> None:
    bare = predict(base, PROMPTS)
    with fold(base.sites(), method.compose(two[:1])):
        one = predict(base, PROMPTS)
    with fold(base.sites(), method.compose(two)):
        both = predict(base, PROMPTS)
    unchanged = method.name in TOKEN_ONLY
    assert torch.equal(bare, one) == torch.equal(one, both) == unchanged


def test_saved_deltas_load_bit_for_bit(two: list[Learned]) -> None:
    deltas = dict(two[1].deltas)
    assert_same_deltas(deltas, load_deltas(save_deltas(deltas)))


def test_folded_and_attached_say_the_same(base: Base, method: Method, two: list[Learned]) -> None:
    deltas = method.compose(two)
    with fold(base.sites(), deltas):
        folded = predict(base, PROMPTS)
    with attach(base.sites(), deltas):
        attached = predict(base, PROMPTS)
    torch.testing.assert_close(folded, attached, atol=1e-5, rtol=0)


def test_the_kept_deltas_add_up_to_the_composed_ones(method: Method, two: list[Learned]) -> None:
    for site, delta in method.compose(two).items():
        total = sum(one.deltas[site].matrix() for one in two)
        torch.testing.assert_close(delta.matrix(), total, atol=1e-6, rtol=0)


@pytest.mark.parametrize("put", [fold, attach])
def test_a_disabled_adapter_leaves_the_base_untouched(base: Base, method: Method, two: list[Learned], put) -> None:
    before, said = weights(base), predict(base, PROMPTS)
    with put(base.sites(), method.compose(two)):
        pass
    assert hooks(base) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(base).items())
    assert torch.equal(said, predict(base, PROMPTS))


def test_learning_leaves_the_base_untouched(base: Base, method: Method, two: list[Learned]) -> None:
    before, tokens = weights(base), dict(base.tokens)
    learn(base, method, "mug", two)
    with pytest.raises(RuntimeError, match="stop"):
        learn(base, method, "mug", two, on_step=_stop)
    assert hooks(base) == 0 and dict(base.tokens) == tokens
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(base).items())
    assert not any(parameter.requires_grad for parameter in base.denoiser.parameters())


def _stop(*_: object) -> None:
    raise RuntimeError("stop")


def test_learning_leaves_the_earlier_concepts_untouched(base: Base, method: Method, two: list[Learned]) -> None:
    before = [save_deltas(one.deltas) | dict(one.tokens) for one in two]
    before = [{key: tensor.clone() for key, tensor in tensors.items()} for tensors in before]
    learn(base, method, "mug", two)
    for one, tensors in zip(two, before, strict=True):
        after = save_deltas(one.deltas) | dict(one.tokens)
        assert all(torch.equal(tensor, after[key]) for key, tensor in tensors.items())


def test_zero_steps_say_what_the_base_says(base: Base, method: Method, two: list[Learned]) -> None:
    fresh = learn(base, method, "mug", two, steps=0)
    with fold(base.sites(), method.compose(two)):
        before = predict(base, PROMPTS)
    with fold(base.sites(), method.compose([*two, fresh])):
        assert torch.equal(before, predict(base, PROMPTS))


def test_the_optimiser_holds_exactly_the_learners_parameters(base: Base, method: Method, two: list[Learned]) -> None:
    learner = method.begin("mug", None, base, two, torch.Generator().manual_seed(0))
    groups = learner.parameter_groups()
    held = [parameter for group in groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in learner.parameters()}
    assert len(held) == len(set(map(id, held)))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in held)
    assert all(group["lr"] > 0 for group in groups)


def test_every_parameter_is_trained(base: Base, method: Method, two: list[Learned]) -> None:
    learner = method.begin("mug", None, base, two, torch.Generator().manual_seed(0))
    learner_after = _train_and_hold(base, method, two)
    before, after = learner.state_dict(), learner_after.state_dict()
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []


def _train_and_hold(base: Base, method: Method, earlier: list[Learned]) -> torch.nn.Module:
    """The learner of a run, as it is after the last step."""
    held: list[torch.nn.Module] = []

    class Holding(type(method)):
        def begin(self, *args, **kwargs):
            held.append(super().begin(*args, **kwargs))
            return held[0]

    learn(base, Holding(**method_settings(method)), "mug", earlier)
    return held[0]


def test_a_picture_does_not_depend_on_its_batch(base: Base, method: Method, two: list[Learned]) -> None:
    base.set_tokens({one.name: one.tokens for one in two})
    prompts = ["a photo of <rex> dog", "a photo of <kiki> dog", "a dog"]
    with fold(base.sites(), method.compose(two)):
        together, alone = predict(base, prompts), torch.cat([predict(base, [prompt]) for prompt in prompts])
        turned = predict(base, prompts[::-1]).flip(0)
    base.set_tokens({})
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=0)


def test_the_same_seed_learns_the_same_and_another_another(base: Base, method: Method) -> None:
    first = learn(base, method, "rex")
    assert_same_learned(first, learn(base, method, "rex"))
    other = learn(base, method, "rex", seed=1)
    assert not torch.equal(first.tokens["text_encoder"], other.tokens["text_encoder"])


def test_removing_a_concept_restores_exactly(tmp_path: Path, base: Base, method: Method, two: list[Learned]) -> None:
    library = library_of(tmp_path / "library", base, method, two[:1])
    with fold(base.sites(), method.compose(library.learned())):
        before = predict(base, PROMPTS)
    library.commit(two[1])
    library.remove("kiki")
    assert_same_learned(two[0], library.learned()[0])
    with fold(base.sites(), method.compose(library.learned())):
        assert torch.equal(before, predict(base, PROMPTS))


def test_any_past_state_reopens_exactly(tmp_path: Path, base: Base, method: Method, two: list[Learned]) -> None:
    library_of(tmp_path / "library", base, method, two).remove("rex")
    for state, expected in enumerate([[], two[:1], two, two[1:]]):
        reopened = Library.open(tmp_path / "library", at=state).learned()
        assert [one.name for one in reopened] == [one.name for one in expected]
        for left, right in zip(reopened, expected, strict=True):
            assert_same_learned(left, right)


@pytest.mark.parametrize("name", ["deltas.safetensors", "tokens.safetensors"])
def test_a_damaged_file_is_refused_with_its_name(
    tmp_path: Path, base: Base, method: Method, two: list[Learned], name: str
) -> None:
    library_of(tmp_path / "library", base, method, two)
    (path,) = (tmp_path / "library").glob(f"concepts/*rex/{name}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MnemonError, match=name):
        Library.open(tmp_path / "library")


def test_twelve_concepts_in_a_row(tmp_path: Path, base: Base, method: Method) -> None:
    library = Library.create(tmp_path / "library", base, method)
    learned: list[Learned] = []
    for index in range(12):
        learned.append(learn(base, method, f"c{index}", learned, steps=2))
        library.commit(learned[-1])
    for left, right in zip(Library.open(tmp_path / "library").learned(), learned, strict=True):
        assert_same_learned(left, right)
    tokens = torch.cat([one.tokens["text_encoder"] for one in learned])
    assert len(tokens.unique(dim=0)) == 12
    assert len({one.stored_bytes for one in learned}) == 1
    assert all(delta.matrix().isfinite().all() for delta in method.compose(learned).values())


def test_a_step_costs_the_same_with_one_concept_and_with_twelve(base: Base, method: Method, two: list[Learned]) -> None:
    few = method.begin("mug", None, base, two[:1], torch.Generator().manual_seed(0))
    many = method.begin("mug", None, base, two * 6, torch.Generator().manual_seed(0))
    sizes = [
        [tensor.shape for tensor in [*learner.parameters(), *learner.buffers()]] + list(learner.deltas())
        for learner in (few, many)
    ]
    assert sizes[0] == sizes[1]


def test_it_goes_on_after_a_kill_bit_for_bit(tmp_path: Path, base: Base, method: Method) -> None:
    steps = 40
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.victim", method.name, str(tmp_path), str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    assert victim.stdout is not None
    with victim.stdout as lines:
        assert "5" in (line.strip() for line in lines)
        victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    seen: list[int] = []
    resumed = learn(base, method, "rex", folder=tmp_path, on_step=lambda step, *_: seen.append(step), steps=steps)
    assert seen[0] > 5 and seen[-1] == steps
    discard_snapshot(tmp_path)
    assert_same_learned(resumed, learn(base, method, "rex", steps=steps))


def test_a_method_is_made_again_from_its_settings(method: Method) -> None:
    assert method_from(method.name, method_settings(method)) == method


def test_a_method_describes_itself(method: Method) -> None:
    for attribute in ("name", "trains", "stores", "source"):
        assert getattr(method, attribute)
    assert method.prompt_name("rex", None) == "<rex>"
