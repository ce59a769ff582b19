"""The one training loop of classifiers. It knows no method: a method gives features, parameter groups and a penalty."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnemon.adapters import save_deltas
from mnemon.classification.backbone import Backbone
from mnemon.classification.head import GrowingHead, head_of
from mnemon.classification.methods.base import Batch, ClassifierMethod, Start, TrainedTask
from mnemon.classification.tasks import Task
from mnemon.classification.views import chunks, kept, normalised, test_view, training_view
from mnemon.errors import MnemonError
from mnemon.seeding import seeded_generator
from mnemon.tensor_files import tensors_sha256
from mnemon.training.resume import Checkpoints

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the steps done, the steps in all, and {"loss", "penalty", "rate"}."""
CHECKPOINT_SECONDS = 30.0
VERSION = "classification 1"
"""Raised with what a checkpoint holds."""


def train_task(
    backbone: Backbone,
    method: ClassifierMethod,
    task: Task,
    earlier: Sequence[TrainedTask] = (),
    *,
    seed: int = 0,
    folder: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_step: OnStep | None = None,
) -> TrainedTask:
    """Learn one task on top of `earlier` ones. When this returns or raises, the backbone is as it was before.

    Args:
        seed: of all random numbers; each task has numbers of its own, from the seed and its name.
        folder: for checkpoints; None keeps none. A run that was killed goes on from there to the same weights, bit for
            bit. When the task is committed, call `discard_checkpoint(folder)`.

    Raises:
        MnemonError: the method cannot work on the backbone or not after other tasks, the loss is not finite, or the
            checkpoint in `folder` is damaged.
    """
    method.check_backbone(backbone)
    if method.trains_jointly and earlier:
        raise MnemonError(
            f"The method '{method.name}' learns all its classes at once, and there are some already: give all of them "
            "in one folder, for a new library."
        )
    with TaskRun.prepared(backbone, method, task, earlier, seed, folder) as run:
        run.learner.on_train_start(run.batches)
        done = run.checkpoints.restore(run.steps)
        while done < run.steps:
            logs = run.step(done)
            done += 1
            if done == run.steps or run.checkpoints.age >= checkpoint_seconds:
                run.checkpoints.save(done)
            if on_step:
                on_step(done, run.steps, logs)
        return run.finish()


class TaskRun:
    """What the steps of one run share; within it the backbone holds what is trained."""

    def __init__(
        self,
        backbone: Backbone,
        method: ClassifierMethod,
        task: Task,
        earlier: Sequence[TrainedTask],
        seed: int,
        folder: Path | None,
    ) -> None:
        self.backbone, self.method, self.task, self.seed = backbone, method, task, seed
        self.images = [kept(one.image, backbone.image_size) for one in task.examples]
        self.labels = torch.tensor(task.labels())
        self.queries = self._queries() if method.uses_queries else None
        self.rng = self._generator("draws")
        start = Start(task.name, task.classes, backbone, earlier, self._generator("start"))
        self.learner = method.begin(start)
        before = head_of(earlier, backbone.width)
        self.known = len(before["bias"])
        trains_earlier = not method.masks_earlier
        self.head = GrowingHead(before, len(task.classes), self._generator("head"), backbone.device, trains_earlier)
        groups = [*self.learner.parameter_groups(), {"params": self.head.trained(), "lr": method.learning_rate}]
        # The optimiser comes after the learner and the head, whose parameters it holds.
        self.optimizer = torch.optim.Adam(groups)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.size = min(method.batch_size, len(self.images))
        self.per_epoch = len(self.images) // self.size
        self.steps = method.epochs * self.per_epoch if method.trains_head else 0
        self.order: tuple[int, Tensor] | None = None
        identity = run_identity(backbone, method, task, earlier, seed)
        modules = {"learner": self.learner, "head": self.head}
        self.checkpoints = Checkpoints(folder, identity, modules, self.optimizer, self.rng)

    @classmethod
    @contextmanager
    def prepared(
        cls,
        backbone: Backbone,
        method: ClassifierMethod,
        task: Task,
        earlier: Sequence[TrainedTask],
        seed: int,
        folder: Path | None,
    ) -> "Iterator[TaskRun]":
        """The run, with the earlier tasks merged and the learner attached; the backbone is restored in any case."""
        _ = backbone.fingerprint  # while the weights are its own
        with ExitStack() as undo:
            if not method.on_bare_backbone:
                undo.enter_context(method.merged(backbone, earlier))
            run = cls(backbone, method, task, earlier, seed, folder)
            undo.enter_context(run.learner.attached(backbone))
            yield run

    def step(self, step: int) -> dict[str, float]:
        """One step of the optimiser; returns what is worth logging."""
        factor = lr_factor(step // self.per_epoch, self.method.epochs)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = self._training_batch(step)
        self.learner.before_step(self.rng, step / self.steps)
        features = self.learner.features(self.backbone, batch)
        logits = self.head(features)
        loss = masked_cross_entropy(logits, batch.labels, self.known, self.method.masks_earlier)
        penalty = self.learner.penalty(batch, features, logits)
        self.optimizer.zero_grad()
        (loss + penalty).backward()
        self.optimizer.step()
        logs = {"loss": loss.item(), "penalty": penalty.item(), "rate": self.optimizer.param_groups[-1]["lr"]}
        if not math.isfinite(logs["loss"] + logs["penalty"]):
            raise MnemonError(
                f"The loss of '{self.task.name}' is {logs['loss'] + logs['penalty']} at step {step + 1}: the training "
                "diverged. Use a lower learning rate."
            )
        return logs

    def finish(self) -> TrainedTask:
        """What is kept of the task."""
        self.learner.eval()
        with torch.no_grad():
            self.learner.before_step(self.rng, 1.0)
        self.learner.on_train_end(self.batches, self._own_logits)
        extra = self.learner.extra()
        head = self.learner.head() or self.head.stored()
        queries = 0 if self.queries is None else self.queries.numel() * self.queries.element_size()
        facts = {**self.learner.facts(), "images": len(self.images), "query_cache_bytes": queries}
        return TrainedTask(self.task.name, self.task.classes, head, self.learner.deltas(), extra, facts)

    def batches(self) -> Iterator[Batch]:
        """The images once, in order, as they are tested."""
        for rows in chunks(range(len(self.images)), self.size):
            yield self._batch(list(rows), [test_view(self.images[row], self.backbone.image_size) for row in rows])

    def _training_batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.per_epoch)
        if self.order is None or self.order[0] != epoch:
            generator = self._generator(f"epoch {epoch}")  # of its own, so that a resumed run finds the same order
            self.order = epoch, torch.randperm(len(self.images), generator=generator, device=generator.device).cpu()
        rows = self.order[1][place * self.size : (place + 1) * self.size].tolist()
        side = self.backbone.image_size
        if self.method.augment == "crop":
            return self._batch(rows, [training_view(self.images[row], side, self.rng) for row in rows])
        return self._batch(rows, [test_view(self.images[row], side) for row in rows])

    def _batch(self, rows: list[int], views: Sequence[Tensor]) -> Batch:
        images = normalised_for(self.method, self.backbone, views)
        queries = None if self.queries is None else self.queries[rows].to(images.device)
        return Batch(images, self.labels[rows].to(images.device), queries)

    @torch.no_grad()
    def _queries(self) -> Tensor:
        """Features of each image in the frozen backbone, once for all epochs, (images, width) on the CPU."""
        side = self.backbone.image_size
        parts = ([test_view(image, side) for image in part] for part in chunks(self.images, self.method.batch_size))
        done = [self.backbone.features(normalised_for(self.method, self.backbone, part)).cpu() for part in parts]
        return torch.cat(done)

    def _own_logits(self, batch: Batch) -> Tensor:
        return self.head.own(self.learner.features(self.backbone, batch))

    def _generator(self, purpose: str) -> torch.Generator:
        return seeded_generator(self.seed, self.task.name, purpose, self.backbone.device)


def lr_factor(epoch: int, epochs: int) -> float:
    """What the learning rates are multiplied by in `epoch` (0-based) of `epochs`: cos(99 pi e / (200 (K - 1)))."""
    return math.cos(99 * math.pi * epoch / (200 * (epochs - 1))) if epochs > 1 else 1.0


def masked_cross_entropy(logits: Tensor, labels: Tensor, known: int, masked: bool) -> Tensor:
    """The mean cross entropy of logits (images, classes) of all classes so far, the first `known` of earlier tasks.

    Args:
        labels: numbers among the task's classes.
        masked: leave the earlier classes out, as logits of minus infinity would.
    """
    return cross_entropy(logits[:, known:], labels) if masked else cross_entropy(logits, labels + known)


def normalised_for(method: ClassifierMethod, backbone: Backbone, views: Sequence[Tensor]) -> Tensor:
    """Views in 0..1 as the backbone is to see them, on its device."""
    mean, std = (backbone.mean, backbone.std) if method.normalization == "backbone" else ((0.0,) * 3, (1.0,) * 3)
    return normalised(views, mean, std).to(backbone.device)


def run_identity(
    backbone: Backbone, method: ClassifierMethod, task: Task, earlier: Sequence[TrainedTask], seed: int
) -> dict[str, str]:
    """Everything that decides the outcome of a run, by names that a person knows."""
    facts = {"format of checkpoints": VERSION, "backbone": backbone.fingerprint, "method": method.name}
    facts |= {f"{method.name}.{name}": json.dumps(value) for name, value in asdict(method).items()}
    facts |= {"seed": str(seed), "task": task.name, "classes": json.dumps(task.classes)}
    facts["images"] = tensors_sha256({}, head=json.dumps([[one.label, one.sha256] for one in task.examples]))[:12]
    for one in earlier:
        tensors = save_deltas(one.deltas) | dict(one.head) | dict(one.extra)
        facts[f"earlier task {one.name}"] = tensors_sha256(tensors, head=json.dumps(one.classes))[:12]
    return facts
