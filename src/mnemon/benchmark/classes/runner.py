"""One job: learn the tasks one after another, and after each count what is right among all classes so far.

A task counts as learned once it is in the job's library, a state as scored once its row is written; between the two
lies a training checkpoint, so a killed job goes on where it was. A method that learns all at once has a last row only.
"""

from functools import cached_property, lru_cache

import torch

from mnemon.adapters import save_deltas
from mnemon.benchmark.classes.jobs import ClassJob
from mnemon.benchmark.measuring import PeakMemory, parameter_count
from mnemon.benchmark.running import OnProgress, complete, run_facts
from mnemon.classification import Backbone, ClassLibrary, Task, frozen_features, learn_classes, load_backbone
from mnemon.classification.evaluating import accuracy_row
from mnemon.classification.methods import Start, TrainedTask
from mnemon.evaluation.run_folder import Progress, RunFolder

JOINT = "together"


def run_class_job(job: ClassJob, on_progress: OnProgress = lambda progress: None) -> None:
    """Do the job, or what is left of it. Any error is written to its folder instead of raised."""
    folder = RunFolder(job.folder)
    complete(folder, lambda: _Run(job, folder, on_progress), "opening backbone and sequence")


class _Run:
    """The state of one job."""

    def __init__(self, job: ClassJob, folder: RunFolder, on_progress: OnProgress) -> None:
        self.job, self.folder, self.on_progress, self.doing = job, folder, on_progress, "beginning"
        self.backbone, self.method, self.sequence = _backbone(job.backbone), job.made_method(), job.opened()
        self.tasks = self.sequence.tasks(job.order)
        self.test = self.sequence.images()[1]
        self.task_of = {label: task.name for task in self.tasks for label in task.classes}
        self.path = folder.path / "library"

    def complete(self) -> None:
        facts = run_facts(self.job.departures(), self.backbone.device)
        self.folder.begin({**self.job.to_json(self.sequence), **facts})
        library = ClassLibrary.open_or_create(self.path, self.backbone, self.method)
        with PeakMemory(self.backbone.device) as memory:
            for number, task in self._steps():
                if task.name not in library.names():
                    self._learn(number, task)
                library = ClassLibrary.open(self.path)
                self._score(number, library, memory)

    def _steps(self) -> list[tuple[int, Task]]:
        """Each task with how many there are after it."""
        if not self.method.trains_jointly:
            return list(enumerate(self.tasks, start=1))
        classes = tuple(label for task in self.tasks for label in task.classes)
        whole = Task(JOINT, classes, tuple(one for task in self.tasks for one in task.examples))
        return [(len(self.tasks), whole)]

    def _learn(self, number: int, task: Task) -> None:
        before = self._before(number)

        def on_step(done: int, steps: int, _: object) -> None:
            self._now(before + (number - before) * done / steps / 2, f"learning {task.name}")

        self._now(before, f"learning {task.name}")
        learn_classes(self.path, task, backbone=self.backbone, method=self.method, seed=self.job.seed, on_step=on_step)

    def _score(self, number: int, library: ClassLibrary, memory: PeakMemory) -> None:
        if str(number) in self.folder.rows:
            return
        self._now((self._before(number) + number) / 2, f"testing after task {number}")
        at = library if self.method.trains_jointly else ClassLibrary.open(self.path, number)
        learned = at.learned()
        row = accuracy_row(self.backbone, self.method, learned, self.task_of, self.test, self.queries)
        entries = library.concepts()
        costs = self.folder.costs
        costs["peak_memory_bytes"] = max(costs.get("peak_memory_bytes", 0), memory.peak)
        costs["seconds"] = {name: entry.settings["seconds"] for name, entry in entries.items()}
        costs["bytes"] = {name: entry.stored_bytes for name, entry in entries.items()}
        costs.setdefault("parameters", self._parameters())
        costs["stored_parameters"] = sum(map(_stored, learned)) / len(learned)
        costs["query_cache_bytes"] = max(entry.facts["query_cache_bytes"] for entry in entries.values())
        self.folder.write_row(number, row, {}, {})

    def _parameters(self) -> int:
        """Numbers trained for the first task, beside the head."""
        first = self._steps()[0][1]
        generator = torch.Generator(self.backbone.device).manual_seed(0)
        learner = self.method.begin(Start(first.name, first.classes, self.backbone, [], generator))
        return parameter_count(learner.parameter_groups())

    @cached_property
    def queries(self) -> torch.Tensor | None:
        """Features of the test images in the frozen backbone, once for all rows."""
        if not self.method.uses_queries:
            return None
        return frozen_features(self.backbone, self.method, [one.image for one in self.test])

    def _before(self, number: int) -> int:
        return 0 if self.method.trains_jointly else number - 1

    def _now(self, done: float, doing: str) -> None:
        self.doing = doing
        self.on_progress(Progress(done, len(self.tasks), doing))


def _stored(task: TrainedTask) -> int:
    """Numbers that are kept of a task, its rows of the head included."""
    tensors = [*task.head.values(), *task.extra.values(), *save_deltas(task.deltas).values()]
    return sum(tensor.numel() for tensor in tensors)


@lru_cache(maxsize=1)
def _backbone(name: str) -> Backbone:
    """Jobs of one process share it."""
    return load_backbone(name)
