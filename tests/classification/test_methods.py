"""What is particular to a method: its formulas, in closed form where there is one."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from mnemon.adapters import save_deltas
from mnemon.classification import Classifier, class_order, frozen_features, split_tasks, train_task
from mnemon.classification.head import head_of
from mnemon.classification.methods import Batch, Start, TrainedTask, classifier_from
from mnemon.classification.methods.coda_p import disorder, orthonormal_rows, weighted_prompts
from mnemon.classification.methods.inflora import extended_span, off_span
from mnemon.classification.methods.l2p import chosen_prompts
from mnemon.classification.training import TaskRun, lr_factor, masked_cross_entropy
from mnemon.errors import MnemonError
from tests.classification.conftest import Course
from tests.classification.small import WIDTH, backbone, example, learned, small, task


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begun(name: str, earlier: list[TrainedTask], **more: Any) -> Any:
    return small(name, **more).begin(Start("next", ("a", "b"), backbone(), earlier, numbers()))


def test_masked_logits_are_logits_of_minus_infinity() -> None:
    logits, labels = torch.randn(5, 7, generator=numbers()), torch.tensor([0, 1, 2, 0, 1])
    masked = logits.clone()
    masked[:, :4] = -math.inf
    expected = cross_entropy(masked, labels + 4)
    torch.testing.assert_close(masked_cross_entropy(logits, labels, 4, masked=True), expected)
    assert masked_cross_entropy(logits, labels, 4, masked=False) == cross_entropy(logits, labels + 4)


def test_the_rate_falls_along_the_published_cosine() -> None:
    rates = [lr_factor(epoch, 50) for epoch in range(50)]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.0157, abs=1e-4)  # cos(99 pi / 200)
    assert lr_factor(0, 1) == 1


def test_the_rate_of_a_run_follows_it_epoch_by_epoch() -> None:
    rates = []
    train_task(backbone(), small("lora"), task(0), on_step=lambda done, total, logs: rates.append(logs["rate"]))
    assert rates == pytest.approx([1e-2] * 2 + [1e-2 * math.cos(99 * math.pi / 400)] * 2 + [1e-2 * lr_factor(2, 3)] * 2)


@pytest.mark.parametrize("count, size", [(3, 8), (8, 8), (17, 8), (16, 8)])
def test_a_last_partial_batch_is_left_out_unless_it_is_all(count: int, size: int) -> None:
    one, seen = task(0, classes=1, images=count), []
    train_task(backbone(), small("lora", epochs=1, batch_size=size), one, on_step=lambda *call: seen.append(call[:2]))
    assert len(seen) == max(1, count // size)


def test_rows_of_earlier_classes_stay_unless_a_method_trains_them(course: Course) -> None:
    for name, kept in (("finetune++", True), ("stamina", True), ("finetune", False)):
        first, second = (head_of(course(name)[:count], WIDTH) for count in (1, 2))
        assert torch.equal(first["weight"], second["weight"][:2]) == kept
        assert second["weight"].shape == (4, WIDTH) and len(second["bias"]) == 4


def test_the_head_of_many_tasks_is_the_newest_row_of_each_class() -> None:
    def brought(classes: str, rows: int, value: float) -> TrainedTask:
        return TrainedTask(
            "t", tuple(classes), {"weight": torch.full((rows, 2), value), "bias": torch.full((rows,), value)}
        )

    tasks = [brought("ab", 2, 1.0), brought("c", 1, 2.0), brought("de", 5, 3.0), brought("f", 1, 4.0)]
    assert head_of(tasks, 2)["bias"].tolist() == [3, 3, 3, 3, 3, 4]
    assert head_of(tasks[:2], 2)["weight"][:, 0].tolist() == [1, 1, 2]
    assert head_of([], 2)["weight"].shape == (0, 2)


def test_unmasked_finetuning_forgets_and_masking_forgets_less() -> None:
    tasks = [task(number, images=4) for number in range(3)]
    images = [one.image for single in tasks for one in single.examples]
    truth = torch.tensor([label + 2 * number for number, single in enumerate(tasks) for label in single.labels()])
    accuracy = {}
    for name in ("finetune", "finetune++"):
        method = small(name, epochs=12, augment="none")
        with Classifier.opened(backbone(), method, learned(method, tasks)) as opened:
            right = opened.predict(images).argmax(1) == truth
        accuracy[name] = [part.float().mean().item() for part in right.chunk(3)]
    assert accuracy["finetune"][0] < 0.5 and accuracy["finetune"][-1] > 0.7
    assert sum(accuracy["finetune++"][:2]) > sum(accuracy["finetune"][:2]) + 0.2


def test_the_nearest_mean_is_found_by_the_linear_head(course: Course) -> None:
    def features(label: int, numbers: Sequence[int]) -> torch.Tensor:
        return frozen_features(backbone(), small("nearest-mean"), [example(label, one).image for one in numbers])

    means = torch.stack([features(label, (0, 1)).mean(0) for label in range(24)])
    images = [example(label, 77).image for label in range(24)]
    expected = torch.cdist(torch.cat([features(label, (77,)) for label in range(24)]), means).argmin(1)
    with Classifier.opened(backbone(), small("nearest-mean"), course("nearest-mean")) as opened:
        assert torch.equal(opened.predict(images).argmax(1), expected)
    assert (expected == torch.arange(24)).float().mean() > 0.5


def test_stamina_without_masks_is_c_lora(course: Course) -> None:
    plain = small("stamina", mask="none", forget_scale="sum", forget_weight=0.5)
    tasks = [task(number) for number in range(2)]
    ours, theirs = learned(plain, tasks), learned(small("c-lora"), tasks)
    for left, right in zip(ours, theirs, strict=True):
        a, b = save_deltas(left.deltas), save_deltas(right.deltas)
        # Products are formed otherwise, so the last bits differ, and Adam makes more of them.
        assert all(torch.allclose(a[key], b[key], atol=2e-3) for key in a)
        assert torch.allclose(left.head["weight"], right.head["weight"], atol=2e-3)


@pytest.mark.parametrize("unit", ["column", "row", "entry"])
@pytest.mark.parametrize(
    "more", [{"mask": "soft"}, {"forget": "none"}, {"sparsity": "penalty", "sparsity_weight": 0.0}, {}]
)
def test_stamina_and_its_ablations_learn_and_merge(unit: str, more: dict[str, Any]) -> None:
    method = small("stamina", epochs=1, mask_unit=unit, **more)
    tasks = learned(method, [task(number, images=2) for number in range(3)])
    images = torch.rand(2, 3, 16, 16, generator=numbers())
    read = method.features(backbone(), tasks)
    with method.merged(backbone(), tasks):
        merged = read(images, None)
    with method.attached(backbone(), tasks):
        torch.testing.assert_close(read(images, None), merged, atol=1e-5, rtol=1e-5)
    expected = {
        "column": "low_rank",
        "row": "low_rank",
        "entry": "dense" if more.get("mask") == "soft" else "masked_low_rank",
    }
    assert {delta.kind for delta in tasks[-1].deltas.values()} == {expected[unit]}


def test_penalties_are_zero_for_a_first_task_and_count_later(course: Course) -> None:
    batch = Batch(torch.rand(2, 3, 16, 16, generator=numbers()), torch.tensor([0, 1]), None)
    on = backbone()
    for name in ("c-lora", "stamina", "ewc"):
        method = small(name)
        for earlier in ([], course(name)[:2]):
            with method.merged(on, earlier):
                learner = method.begin(Start("next", ("a", "b"), on, earlier, numbers()))
                for parameter in learner.parameters():
                    parameter.data += 0.1
                learner.before_step(numbers(), 0.0)
                penalty = learner.penalty(batch, torch.zeros(2, WIDTH), torch.zeros(2, 2))
                assert (penalty > 0) == bool(earlier)


def test_c_lora_penalises_by_the_square_of_earlier_changes(course: Course) -> None:
    earlier = course("c-lora")[:3]
    learner = begun("c-lora", earlier, forget_weight=2.0)
    past = {key: sum(one.deltas[key].matrix() for one in earlier) for key in learner.layers}
    for parameter in learner.parameters():
        parameter.data.normal_(generator=numbers(1))
    expected = 2 * sum(((past[key].abs() * one.matrix()) ** 2).sum() for key, one in learner.current().items())
    torch.testing.assert_close(learner.penalty(None, torch.zeros(1), None), expected)


def test_lwf_starts_at_its_teacher(course: Course) -> None:
    method, on, earlier = small("lwf"), backbone(), course("lwf")[:2]
    with method.merged(on, earlier):
        learner = method.begin(Start("next", ("a",), on, earlier, numbers()))
        head = head_of(earlier, WIDTH)
        batch = Batch(torch.rand(4, 3, 16, 16, generator=numbers()), torch.zeros(4, dtype=torch.long), None)

        def penalty() -> torch.Tensor:
            with learner.attached(on):
                features = learner.features(on, batch)
                return learner.penalty(batch, features, features @ head["weight"].T + head["bias"])

        assert penalty().abs() < 1e-6
        for weight in learner.weights:
            weight.data += 0.05
        assert penalty() > 1e-4


def test_sd_lora_begins_at_the_model_before_it(course: Course) -> None:
    method, on, earlier = small("sd-lora"), backbone(), course("sd-lora")[:3]
    images = torch.rand(2, 3, 16, 16, generator=numbers())
    with method.merged(on, earlier):
        before = on.features(images)
    learner = method.begin(Start("next", ("a",), on, earlier, numbers()))
    with learner.attached(on):
        learner.before_step(numbers(), 0.0)
        torch.testing.assert_close(on.features(images), before, atol=1e-5, rtol=1e-5)
    sizes = [sum(float((d.up**2).sum() * (d.down**2).sum()) for d in one.deltas.values()) for one in earlier]
    assert sizes == pytest.approx([1.0] * 3, rel=1e-3)


def test_sd_lora_trains_the_magnitudes_and_not_the_tasks_it_starts_from(course: Course) -> None:
    method = small("sd-lora")
    earlier = learned(method, [task(0), task(1)])
    kept = [one.extra["magnitudes"].clone() for one in earlier]
    third = train_task(backbone(), method, task(2), earlier)
    assert all(torch.equal(one.extra["magnitudes"], before) for one, before in zip(earlier, kept, strict=True))
    assert third.extra["magnitudes"].shape == (3,)
    assert not torch.equal(third.extra["magnitudes"][:2], kept[-1])


def test_a_span_explains_its_share_with_the_fewest_directions() -> None:
    rows = torch.randn(200, 6, generator=numbers()) * torch.tensor([8.0, 4, 2, 1, 0.5, 0.1])
    covariance = rows.T @ rows / 200
    total = covariance.square().sum()

    def explained(span: torch.Tensor) -> float:
        return 1 - float(off_span(covariance, span).square().sum() / total)

    span = extended_span(torch.zeros(6, 0), covariance, 0.98)
    assert explained(span) >= 0.98 > explained(span[:, :-1])
    torch.testing.assert_close(span.T @ span, torch.eye(span.shape[1]), atol=1e-5, rtol=0)
    assert extended_span(span, covariance, 0.9).shape == span.shape
    assert extended_span(span, torch.eye(6), 1.0).shape[1] <= 6


def test_inflora_does_nothing_to_what_earlier_layers_read(course: Course) -> None:
    earlier = course("inflora")[:1]
    method, on = small("inflora"), backbone()
    spans = {name.removeprefix("span."): span for name, span in earlier[0].extra.items()}
    with TaskRun.prepared(on, method, task(5), earlier, 0, None) as run:
        run.learner.on_train_start(run.batches)
        for name, delta in run.learner.current().items():
            span = spans[name.replace("v_proj", "k_proj")]
            assert 0 < span.shape[1] < WIDTH
            assert (delta.down @ span).norm() < 1e-4 < delta.down.norm()


def test_components_are_weighted_by_cosines_of_attended_queries() -> None:
    q, p, k, a = (
        torch.randn(*shape, generator=numbers(seed)) for seed, shape in enumerate([(2, 5), (3, 4, 5), (3, 5), (3, 5)])
    )
    expected = torch.zeros(2, 4, 5)
    for image in range(2):
        for m in range(3):
            expected[image] += cosine_similarity(q[image] * a[m], k[m], dim=0) * p[m]
    torch.testing.assert_close(weighted_prompts(q, p, k, a), expected)


def test_new_components_are_orthogonal_to_all_earlier_ones(course: Course) -> None:
    before = torch.randn(5, 12, generator=numbers())
    rows = orthonormal_rows(before, 4, numbers(1))
    torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-6, rtol=0)
    assert (rows @ before.T).abs().max() < 1e-5 and disorder(rows) < 1e-10
    with pytest.raises(MnemonError, match="room for 12 orthogonal components .* 5 are taken, and a task needs 8 more"):
        orthonormal_rows(before, 8, numbers())
    learner = begun("coda-p", course("coda-p")[:4])
    rows_of_keys = learner.rows()["keys.0"]
    assert rows_of_keys.shape == (10, WIDTH) and not dict(learner.named_buffers())["before_keys_0"].requires_grad
    assert (rows_of_keys[8:] @ rows_of_keys[:8].T).abs().max() < 1e-5


def test_every_image_chooses_its_own_prompts() -> None:
    """What a broadcast over the batch gets wrong in L2P++, and the vote of a batch in L2P."""
    prompts, keys = torch.randn(6, 2, 5, generator=numbers()), torch.randn(6, 5, generator=numbers(1))
    queries = torch.randn(4, 5, generator=numbers(2))
    chosen, distances = chosen_prompts(queries, prompts, keys, 3)
    for row in range(4):
        cosines = cosine_similarity(queries[row][None], keys)
        best = cosines.argsort(descending=True)[:3]
        torch.testing.assert_close(chosen[row], prompts[best])
        torch.testing.assert_close(distances[row], 1 - cosines[best])


@pytest.mark.parametrize("name", ["l2p", "l2p++", "dualprompt"])
def test_the_loss_of_keys_is_a_mean_over_images(name: str, course: Course) -> None:
    learner = begun(name, course(name)[:2])
    queries = torch.randn(4, WIDTH, generator=numbers())

    def penalty(rows: slice) -> torch.Tensor:
        one = queries[rows]
        return learner.penalty(Batch(one, torch.zeros(len(one)), one), one, one)

    alone = torch.stack([penalty(slice(row, row + 1)) for row in range(4)])
    torch.testing.assert_close(penalty(slice(0, 4)), alone.mean())


def test_dualprompt_starts_a_task_as_the_one_before_and_takes_its_own_at_test(course: Course) -> None:
    earlier = course("dualprompt")[:3]
    trained = begun("dualprompt", earlier).trained()
    assert torch.equal(trained["own.1"], earlier[-1].extra["own.1"])
    assert torch.equal(trained["shared.0"], earlier[-1].extra["shared.0"])
    assert not torch.equal(trained["key"], earlier[-1].extra["key"])
    method, on = small("dualprompt"), backbone()
    images = torch.rand(3, 3, 16, 16, generator=numbers())
    read = method.features(on, earlier)
    queries = torch.cat([one.extra["key"] for one in earlier])  # each nearest to its own task's key
    for number, one in enumerate(earlier):
        shared = earlier[-1].extra["shared.0"][:, None]
        own = one.extra["own.1"][0][:, None]
        expected = on.features(images[number][None], {0: (shared[0], shared[1]), 1: (own[0], own[1])})
        torch.testing.assert_close(read(images, queries)[number], expected[0], atol=1e-5, rtol=1e-5)


def test_prompt_methods_name_the_blocks_they_lack() -> None:
    for name, needed in (("coda-p", 5), ("dualprompt", 5)):
        method = classifier_from(name)
        with pytest.raises(MnemonError, match=f"'{name}' works in {needed} blocks, and the backbone 'vit' has 2"):
            train_task(backbone(), method, task(0))
    with pytest.raises(MnemonError, match="'length' is 5; expected an even number"):
        classifier_from("coda-p", {"length": 5})
    with pytest.raises(MnemonError, match="'top_k' is 5; the pool has 4 prompts"):
        classifier_from("l2p", {"pool_size": 4})


def test_frozen_features_of_an_image_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    on, method, calls = backbone(), small("coda-p", epochs=5), []
    features = type(on).features

    def counted(self: Any, images: torch.Tensor, prefixes: Any = None, tokens: Any = None) -> torch.Tensor:
        calls.append((len(images), prefixes is None))
        return features(self, images, prefixes, tokens)

    monkeypatch.setattr(type(on), "features", counted)
    done = train_task(on, method, task(0))
    assert sum(count for count, bare in calls if bare) == 8
    assert done.facts["query_cache_bytes"] == 8 * WIDTH * 4


def test_normalization_is_a_named_choice_that_counts() -> None:
    named, bare = (
        train_task(backbone(), small("lora", epochs=1, normalization=one), task(0)) for one in ("backbone", "none")
    )
    assert not torch.equal(named.head["weight"], bare.head["weight"])
    with pytest.raises(MnemonError, match="'normalization' is 'imagenet'; expected one of"):
        classifier_from("lora", {"normalization": "imagenet"})


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_classes_are_ordered_as_the_published_runs_are(seed: int) -> None:
    expected = list(range(200))
    if seed:
        random.seed(seed)
        random.shuffle(expected)
    assert class_order([str(label) for label in range(200)], seed) == [str(label) for label in expected]


def test_twelve_tasks_are_split_by_number_and_not_by_name() -> None:
    examples = [example(label, 0) for label in range(24)]
    tasks = split_tasks(examples, 12, [f"class-{label}" for label in range(24)])
    assert [one.name for one in tasks] == [f"task-{number}" for number in range(1, 13)]
    assert tasks[9].classes == ("class-18", "class-19") and tasks[1].examples == tuple(examples[2:4])
    with pytest.raises(MnemonError, match="24 classes cannot be split into 5 tasks"):
        split_tasks(examples, 5, [f"class-{label}" for label in range(24)])


def test_unknown_methods_and_settings_name_the_nearest() -> None:
    with pytest.raises(MnemonError, match="no method 'codap' for classes; did you mean 'coda-p'"):
        classifier_from("codap")
    with pytest.raises(MnemonError, match="no setting 'ranks'; did you mean 'rank'"):
        classifier_from("lora", {"ranks": 3})


def test_joint_refuses_a_second_task(course: Course) -> None:
    with pytest.raises(MnemonError, match="'joint' learns all its classes at once"):
        train_task(backbone(), small("joint"), task(20), course("joint"))


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(MnemonError, match="loss of 'task-1' is .* the training diverged. Use a lower learning rate"):
        train_task(backbone(), small("finetune", learning_rate=1e30), task(0))
