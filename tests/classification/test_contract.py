"""What every classification method must do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mnemon.adapters import save_deltas
from mnemon.classification import CLASSIFIERS, Classifier, TrainedTask, train_task
from mnemon.classification.methods import ClassifierMethod, Start
from mnemon.tensor_files import tensors_sha256
from tests.classification.conftest import TASKS, Course
from tests.classification.small import backbone, example, learned, small, task

EVERY = pytest.mark.parametrize("name", CLASSIFIERS)
TRAINED = pytest.mark.parametrize("name", [name for name, kind in CLASSIFIERS.items() if kind.trains_head])
IMAGES = [example(label, 50).image for label in range(7)]


def logits(method: ClassifierMethod, tasks: list[TrainedTask], batch_size: int = 7) -> Tensor:
    with Classifier.opened(backbone(), method, tasks) as opened:
        return opened.predict(IMAGES, batch_size=batch_size)


def tensors(one: TrainedTask) -> dict[str, Tensor]:
    return {**save_deltas(one.deltas), **one.extra, **{f"head.{name}": rows for name, rows in one.head.items()}}


def assert_same(left: TrainedTask, right: TrainedTask) -> None:
    assert tensors(left).keys() == tensors(right).keys()
    assert tensors_sha256(tensors(left)) == tensors_sha256(tensors(right))
    assert left.facts == right.facts


@EVERY
def test_twelve_tasks_keep_their_classes_in_order(name: str, course: Course) -> None:
    with Classifier.opened(backbone(), small(name), course(name)) as opened:
        assert opened.classes == [f"class-{label}" for label in range(2 * TASKS)]
        assert opened.predict(IMAGES).shape == (len(IMAGES), 2 * TASKS)
        assert opened.predict(IMAGES).isfinite().all()


@EVERY
def test_a_prediction_depends_on_no_other_image(name: str, course: Course) -> None:
    method, tasks = small(name), course(name)
    whole = logits(method, tasks)
    for size in (1, 2, 3):  # with 2 and 3 the last batch is a smaller one
        torch.testing.assert_close(logits(method, tasks, size), whole, atol=1e-5, rtol=1e-5)
    with Classifier.opened(backbone(), method, tasks) as opened:
        backwards = opened.predict(IMAGES[::-1])
    torch.testing.assert_close(backwards.flip(0), whole, atol=1e-5, rtol=1e-5)


@EVERY
def test_merged_changes_give_what_attached_ones_do(name: str, course: Course) -> None:
    method, tasks, on = small(name), course(name)[:3], backbone()
    images, read = torch.rand(3, 3, 16, 16), method.features(on, tasks)
    queries = on.features(images)
    with torch.no_grad():
        with method.merged(on, tasks):
            merged = read(images, queries)
        if any(key.startswith("weight.") for key in tasks[-1].extra):
            return  # whole parameters have no other form
        with method.attached(on, tasks):
            torch.testing.assert_close(read(images, queries), merged, atol=1e-5, rtol=1e-5)


@TRAINED
def test_the_backbone_is_left_as_it_was(name: str) -> None:
    on = backbone()
    before = {key: tensor.clone() for key, tensor in on.model.state_dict().items()}
    method = small(name, epochs=1)
    earlier = learned(method, [task(0, images=2)])
    if not method.trains_jointly:
        with pytest.raises(ZeroDivisionError):
            train_task(on, method, task(1, images=2), earlier, on_step=lambda *_: 1 / 0)
    with Classifier.opened(on, method, earlier) as opened:
        opened.predict(IMAGES)
    after = on.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    hooks = [module for module in on.model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not hooks and not any("prefix" in vars(module) for module in on.model.modules())


@TRAINED
def test_the_optimiser_has_exactly_what_is_trained(name: str) -> None:
    method, on = small(name), backbone()
    earlier = [] if method.trains_jointly else learned(small(name, epochs=1), [task(0, images=2)])
    start = Start("task-2", ("a", "b"), on, earlier, torch.Generator())
    learner = method.begin(start)
    given = [id(parameter) for group in learner.parameter_groups() for parameter in group["params"]]
    trained = [id(parameter) for parameter in learner.parameters() if parameter.requires_grad]
    assert sorted(given) == sorted(trained) and given


@TRAINED
def test_a_run_that_was_cut_short_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    method, on = small(name), backbone()
    earlier = [] if method.trains_jointly else learned(small(name, epochs=1), [task(0, images=2)])
    whole = train_task(on, method, task(1), earlier)
    steps = []

    def cut(done: int, total: int, logs: Any) -> None:
        if done == 3:  # of six, in the middle of an epoch
            raise KeyboardInterrupt

    def watch(done: int, total: int, logs: Any) -> None:
        steps.append(done)

    with pytest.raises(KeyboardInterrupt):
        train_task(on, method, task(1), earlier, folder=tmp_path, checkpoint_seconds=0, on_step=cut)
    resumed = train_task(on, method, task(1), earlier, folder=tmp_path, on_step=watch)
    assert steps == [4, 5, 6]
    assert_same(whole, resumed)


@TRAINED
def test_another_seed_starts_anew_and_gives_other_weights(name: str) -> None:
    method = small(name, epochs=1)
    first, again, other = (train_task(backbone(), method, task(0, images=2), seed=seed) for seed in (0, 0, 1))
    assert_same(first, again)
    assert not torch.equal(first.head["weight"], other.head["weight"])


@EVERY
def test_training_images_of_one_task_are_learned(name: str) -> None:
    method = small(name, epochs=30, augment="none") if CLASSIFIERS[name].trains_head else small(name)
    one = task(0, classes=3, images=4)
    with Classifier.opened(backbone(), method, learned(method, [one])) as opened:
        found = opened.predict([example.image for example in one.examples]).argmax(1)
    assert (found == torch.tensor(one.labels())).float().mean() > (0.5 if name == "l2p" else 0.7)  # chance: 0.33
