"""What every method must hold to."""

import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import pytest
import torch

from mnemon.adapters import attach, load_deltas, merge, save_deltas
from mnemon.errors import MnemonError
from mnemon.evaluation.forecast import State, movements, prompt_features
from mnemon.library import Library, composed_changes
from mnemon.methods import Method, Start, TrainedConcept, method_from, method_settings
from mnemon.methods.textual_inversion import TextualInversion
from mnemon.models import Base
from mnemon.models.prompt_syntax import parse_prompt
from mnemon.sampling import Composed, SamplingSettings, sample
from mnemon.training import TrainingSettings, discard_checkpoint, train
from mnemon.training.generated import calibration_images
from tests.contract.table import (
    COMPARES,
    QUICK,
    TOKEN_ONLY,
    VARY,
    OneMore,
    alike,
    assert_same_deltas,
    assert_same_learned,
    hooks,
    images,
    learn,
    learn_all,
    predict,
    small,
    stored_tensors,
    task,
    weights,
)
from tests.processes import PROCESSES, exit_code, started
from tests.tiny import tiny_sd_base

PROMPTS = ["a photo of a dog", "a red mug", "a blue cat on the beach"]


def library_of(path: Path, base: Base, method: Method, learned: list[TrainedConcept]) -> Library:
    library = Library.create(path, base, method)
    for one in learned:
        library.commit(one)
    return library


def test_a_concept_changes_what_its_token_generates(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    untrained = learn_all(base, method, ["rex", "kiki"], steps=0)
    prompt = [f"a photo of {method.prompt_name('kiki', 'dog')}"]
    assert not torch.equal(images(base, method, untrained, prompt), images(base, method, two, prompt))


def test_only_a_method_that_trains_weights_changes_weights(
    base: Base, method: Method, two: list[TrainedConcept]
) -> None:
    prompt = [f"a photo of {method.prompt_name('kiki', 'dog')}"]
    without = [replace(one, deltas={}) for one in two]
    with Composed(base, TextualInversion(), without) as told:  # the tokens alone
        said = told.sample(prompt, [0], SamplingSettings(2.0, 2))
    unchanged = torch.equal(said, images(base, method, two, prompt))
    assert unchanged == (method.name in TOKEN_ONLY)


def test_the_forecast_is_zero_exactly_where_images_stay(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    prompt = [f"a photo of {method.prompt_name('rex', 'dog')}"]
    stays = torch.equal(images(base, method, two[:1], prompt), images(base, method, two, prompt))
    fused = [composed_changes(method, concepts, base) if method.fuses else None for concepts in (two[:1], two)]
    before, after = State(method, two[:1], fused[0]), State(method, two, fused[1])
    moved = movements(base, before, after, lambda concept: prompt_features(base, method, concept))
    assert (moved["rex"] < 1e-6) == stays


def test_a_strength_scales_one_concept_or_is_refused(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    asked = parse_prompt(method.prompt_name("kiki", "dog").replace("<kiki>", "<kiki:0.5>"), ["rex", "kiki"])
    if method.fixed_strength or not two[1].deltas:
        with pytest.raises(MnemonError, match=r"<kiki>.*weight of its token"):
            images(base, method, two, [asked])
        return
    half = replace(two[1], deltas={target: delta.scaled(0.5) for target, delta in two[1].deltas.items()})
    torch.testing.assert_close(images(base, method, two, [asked]), images(base, method, [two[0], half], [str(asked)]))


def test_saved_deltas_load_bit_for_bit(two: list[TrainedConcept]) -> None:
    deltas = dict(two[0].deltas)
    assert_same_deltas(deltas, load_deltas(save_deltas(deltas)))


def test_merged_and_attached_predict_the_same(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    base.set_tokens(method.tokens(two))
    deltas = method.compose(base, two, "a photo of <kiki> dog")
    with merge(base.target_modules(), deltas):
        merged = predict(base, PROMPTS)
    with attach(base.target_modules(), deltas):
        attached = predict(base, PROMPTS)
    base.set_tokens({})
    torch.testing.assert_close(merged, attached, atol=1e-5, rtol=0)


@pytest.mark.parametrize("put", [merge, attach])
def test_a_disabled_adapter_leaves_the_base_untouched(
    base: Base, method: Method, two: list[TrainedConcept], put
) -> None:
    before, said = weights(base), predict(base, PROMPTS)
    base.set_tokens(method.tokens(two))
    with put(base.target_modules(), method.compose(base, two, "a photo of <kiki> dog")):
        pass
    base.set_tokens({})
    assert hooks(base) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(base).items())
    assert torch.equal(said, predict(base, PROMPTS))


def test_learning_leaves_the_base_untouched(
    base: Base, method: Method, two: list[TrainedConcept], one_more: OneMore
) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        learn(base, method, "mug", two, on_step=_stop)
    assert hooks(base) == 0 and dict(base.tokens) == one_more.tokens
    assert all(torch.equal(one_more.weights[name], tensor) for name, tensor in weights(base).items())
    assert not any(parameter.requires_grad for parameter in base.denoiser.parameters())


def _stop(*_: object) -> None:
    raise RuntimeError("stop")


def test_learning_leaves_the_earlier_concepts_untouched(two: list[TrainedConcept], one_more: OneMore) -> None:
    for one, before in zip(two, one_more.earlier, strict=True):
        after = stored_tensors(one)
        assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_zero_steps_change_no_prediction(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    """Of methods that learn on top of what is there; the others combine anew with every concept."""
    if method.on_bare_base or method.trains_jointly:
        assert torch.equal(
            images(base, method, [], PROMPTS),
            sample(base, PROMPTS, range(3), SamplingSettings(2.0, 2)),
        )
        return
    fresh = learn(base, method, "mug", two, steps=0)
    before = images(base, method, two, PROMPTS)
    assert torch.equal(before, images(base, method, [*two, fresh], PROMPTS))


def test_the_optimiser_holds_exactly_the_learners_parameters(
    base: Base, method: Method, two: list[TrainedConcept]
) -> None:
    learner = method.begin(Start("mug", None, base, two, torch.Generator().manual_seed(0)))
    groups = learner.parameter_groups()
    held = [parameter for group in groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in learner.parameters()}
    assert len(held) == len(set(map(id, held)))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in held)
    assert all(group["lr"] > 0 for group in groups)


def test_every_parameter_is_trained(base: Base, method: Method, two: list[TrainedConcept], one_more: OneMore) -> None:
    learner = method.begin(Start("mug", None, base, two, torch.Generator().manual_seed(0)))
    before, after = learner.state_dict(), one_more.learner.state_dict()
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []


def test_a_image_does_not_depend_on_its_batch(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    prompts = [f"a photo of {method.prompt_name(name, 'dog')}" for name in ("rex", "kiki")] + ["a dog"]
    together, alone = (images(base, method, two, prompts, batch_size=batch_size) for batch_size in (3, 1))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_same_seed_learns_the_same_and_another_another(
    base: Base, method: Method, two: list[TrainedConcept]
) -> None:
    first = learn(base, method, "rex") if method.trains_jointly else two[0]
    assert_same_learned(first, learn(base, method, "rex"))
    other = learn(base, method, "rex", seed=1)
    assert not torch.equal(first.tokens["text_encoder"], other.tokens["text_encoder"])


def test_removing_a_concept_restores_exactly(
    tmp_path: Path, base: Base, method: Method, two: list[TrainedConcept]
) -> None:
    library = library_of(tmp_path / "library", base, method, two[:1])
    before = images(base, method, library.learned(), PROMPTS)
    library.commit(two[1])
    if not method.can_remove:
        with pytest.raises(MnemonError, match="cannot remove"):
            library.remove("kiki")
        return
    library.remove("kiki")
    assert_same_learned(two[0], library.learned()[0])
    assert torch.equal(before, images(base, method, library.learned(), PROMPTS))


def test_any_past_state_reopens_exactly(tmp_path: Path, base: Base, method: Method, two: list[TrainedConcept]) -> None:
    library = library_of(tmp_path / "library", base, method, two)
    states = [[], two[:1], two]
    if method.can_remove:
        library.remove("rex")
        states.append(two[1:])
    for state, expected in enumerate(states):
        reopened = Library.open(tmp_path / "library", at=state).learned()
        assert [one.name for one in reopened] == [one.name for one in expected]
        for left, right in zip(reopened, expected, strict=True):
            assert_same_learned(left, right)


@pytest.mark.parametrize("name", ["deltas.safetensors", "tokens.safetensors"])
def test_a_damaged_file_is_refused_with_its_name(
    tmp_path: Path, base: Base, method: Method, two: list[TrainedConcept], name: str
) -> None:
    library_of(tmp_path / "library", base, method, two)
    (path,) = (tmp_path / "library").glob(f"concepts/*rex/{name}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MnemonError, match=name):
        Library.open(tmp_path / "library").learned()


def test_twelve_concepts_in_a_row(tmp_path: Path, base: Base, method: Method) -> None:
    library = Library.create(tmp_path / "library", base, method)
    learned = learn_all(base, method, [f"c{index}" for index in range(12)], steps=1)
    for one in learned:
        library.commit(one)
    for left, right in zip(Library.open(tmp_path / "library").learned(), learned, strict=True):
        assert_same_learned(left, right)
    tokens = torch.stack([one.tokens["text_encoder"].flatten() for one in learned])
    assert len(tokens.unique(dim=0)) == 12
    assert method.trains_jointly or alike(method, [one.stored_bytes for one in learned])
    base.set_tokens(method.tokens(learned))
    composed = method.compose(base, learned, "a photo of <c3> dog")
    base.set_tokens({})
    assert all(delta.matrix().isfinite().all() for delta in composed.values())


def test_a_step_costs_the_same_with_one_concept_and_with_twelve(
    base: Base, method: Method, two: list[TrainedConcept]
) -> None:
    if method.trains_jointly or method.name in COMPARES:
        pytest.skip("compares with every concept")
    many = [replace(one, name=f"{one.name}{index}") for index in range(6) for one in two]
    shapes, sizes = [], []
    for earlier in (two[:1], many):
        learner = method.begin(Start("mug", None, base, earlier, torch.Generator().manual_seed(0)))
        tensors = [*learner.parameters(), *learner.buffers()]
        shapes.append([tensor.shape for tensor in tensors] + list(learner.deltas()))
        sizes.append(sum(tensor.numel() for tensor in tensors))
    assert alike(method, sizes) and (method.name in VARY or shapes[0] == shapes[1])


def test_a_step_in_parts_has_the_same_loss_and_penalty(base: Base, method: Method, two: list[TrainedConcept]) -> None:
    whole, in_parts = (_losses(base, method, two, parts) for parts in (1, 3))
    assert in_parts == pytest.approx(whole, rel=1e-2, abs=1e-9)


def _losses(base: Base, method: Method, earlier: list[TrainedConcept], parts: int) -> list[float]:
    """Loss and penalty of every step, of two concepts together where the method can."""
    names, seen = ("mug", "hat") if method.concurrent else ("mug",), list[float]()
    calibration = calibration_images(base, method, sampling=QUICK)
    tasks = [replace(task(base, method, name), calibration=calibration) for name in names]
    settings = TrainingSettings(batch_size=4, gradient_accumulation_steps=parts)
    known = [] if method.trains_jointly else earlier
    train(base, method, tasks, known, settings, on_step=lambda *step: seen.extend(list(step[2].values())[:2]))
    return seen


def test_concepts_learned_together_do_not_mind_their_order(base: Base, method: Method) -> None:
    tasks = [task(base, method, name) for name in ("rex", "kiki", "mug")]
    if not method.concurrent:
        with pytest.raises(MnemonError, match="one concept after another"):
            train(base, method, tasks)
        return
    before = weights(base)
    straight = train(base, method, tasks)
    turned = train(base, method, tasks[::-1])
    assert [one.name for one in straight] == ["rex", "kiki", "mug"]
    for left, right in zip(straight, turned[::-1], strict=True):
        assert_same_learned(left, right)
    assert hooks(base) == 0 and all(torch.equal(before[name], tensor) for name, tensor in weights(base).items())


def _learn(name: str, folder: Path, steps: int, progress: Connection) -> None:
    def on_step(step: int, *_: object) -> None:
        progress.send(step)
        if step == steps - 1:
            Event().wait(60)  # the kill comes at any moment, but before the end

    learn(tiny_sd_base(), small(name), "rex", folder=folder, on_step=on_step, steps=steps, checkpoint_seconds=0)


def test_it_goes_on_after_a_kill_bit_for_bit(tmp_path: Path, base: Base, method: Method) -> None:
    steps, killed_after = 6, 2
    steps_done, progress = PROCESSES.Pipe(duplex=False)
    victim = started(_learn, method.name, tmp_path, steps, progress)
    progress.close()
    with steps_done:
        while steps_done.recv() < killed_after:
            pass
        victim.kill()
    assert exit_code(victim) == -signal.SIGKILL
    seen: list[int] = []
    resumed = learn(base, method, "rex", folder=tmp_path, on_step=lambda step, *_: seen.append(step), steps=steps)
    assert seen[0] > killed_after and seen[-1] == steps
    discard_checkpoint(tmp_path)
    assert_same_learned(resumed, learn(base, method, "rex", steps=steps))


def test_a_run_goes_on_for_longer_unless_its_steps_depend_on_their_number(
    tmp_path: Path, base: Base, method: Method, caplog: pytest.LogCaptureFixture
) -> None:
    learn(base, method, "rex", folder=tmp_path, steps=2)
    seen: list[int] = []
    longer = learn(base, method, "rex", folder=tmp_path, on_step=lambda step, *_: seen.append(step), steps=4)
    assert seen == ([1, 2, 3, 4] if method.follows_progress else [3, 4])
    assert ("steps 2 then, 4 now" in caplog.text) == method.follows_progress
    assert_same_learned(longer, learn(base, method, "rex", steps=4))


def test_a_method_is_made_again_from_its_settings(method: Method) -> None:
    assert method_from(method.name, method_settings(method)) == method


def test_a_method_describes_itself(method: Method) -> None:
    for attribute in ("name", "trains", "stores", "source"):
        assert getattr(method, attribute)
    assert method.prompt_name("rex", None) == "<rex>"
