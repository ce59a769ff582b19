"""One job: learn the concepts of a sequence one after another, and score after each. A killed job goes on where it was.

A concept counts as learned once it is in the job's library, a state as scored once its row is written; between the two
lies a training checkpoint. Methods whose concepts can be learned in the same steps learn five at a time, and what the
model knew after each of them is composed exactly from the first so many. One that learns all at once has a last row
only.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mnemon.api.opening import base_named, encoders_of
from mnemon.benchmark.alone import scores_of_first, scores_of_other_orders
from mnemon.benchmark.jobs import Job
from mnemon.benchmark.measuring import PeakMemory, StepClock, parameter_count
from mnemon.benchmark.running import OnProgress, complete, run_facts
from mnemon.benchmark.sequences import ConceptSpec
from mnemon.benchmark.shared import calibration_set, control_scores
from mnemon.data import photos_tensor
from mnemon.evaluation import Encoders, EvalRow, evaluate, reference_features
from mnemon.evaluation.prompts import EvalPrompts, combined_prompts, concept_prompts, prompt_set
from mnemon.evaluation.run_folder import Progress, RunFolder
from mnemon.library import Library
from mnemon.methods import Start
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base, Weights
from mnemon.sampling import Composed, image_strip
from mnemon.training import TrainingSettings, discard_checkpoint, make_tasks, train

TOGETHER = 5  # concepts that learn in the same steps, where a method lets them
SHOWN = 4  # images in a strip; also images of each combination of concepts


def run_job(job: Job, on_progress: OnProgress = lambda progress: None) -> None:
    """Do the job, or what is left of it. Any error is written to its folder instead of raised."""
    folder = RunFolder(job.folder)
    complete(folder, lambda: _Run(job, folder, on_progress), "opening base and sequence")


class _Run:
    """The state of one job."""

    def __init__(self, job: Job, folder: RunFolder, on_progress: OnProgress) -> None:
        self.job, self.folder, self.on_progress, self.doing = job, folder, on_progress, "beginning"
        self.base, self.encoders = _opened(job.base, job.weights)
        self.sequence = job.opened()
        self.members = self.sequence.ordered(job.order).concepts
        self.method = job.made_method()
        self.features = folder.features()
        self.library = Library.open_or_create(folder.path / "library", self.base, self.method)
        self.learned = self.library.learned()
        self.full = job.full_evaluations(len(self.members))

    def complete(self) -> None:
        with self.library.lock(), PeakMemory(self.base.device) as memory:
            self._begin()
            for start, group in groups(self.method, self.members):
                self._learn(start, group)
                for state in range(start + 1, start + len(group) + 1):
                    if not self.method.trains_jointly or state == len(self.members):
                        self._score(state, memory)
            if self.job.alone:
                self._score_alone()

    def _begin(self) -> None:
        facts = run_facts(self.job.departures(), self.base.device)
        self.folder.begin({**self.job.to_json(self.sequence), **facts})
        scores, image = control_scores(self.job.out, self.base, self.encoders, self.job.eval_settings)
        self.folder.rows["0"] = {"concepts": {}, "general": scores}
        self.features["general/0/image"] = image
        self.calibration = calibration_set(self.job.out, self.base, self.method)
        if "parameters" not in self.folder.costs:
            self.folder.costs |= {"parameters": self._parameters(), "peak_memory_bytes": 0}
            self.folder.costs |= {"fusion_seconds": 0.0, "fusion_peak_bytes": 0}

    def _parameters(self) -> int:
        """Numbers trained for the first concept."""
        first, generator = self.members[0], torch.Generator(self.base.device).manual_seed(0)
        learner = self.method.begin(Start(first.name, first.class_noun, self.base, [], generator))
        return parameter_count(learner.parameter_groups())

    def _learn(self, start: int, group: Sequence[ConceptSpec]) -> None:
        """Train the group and commit it. Concepts of it that were committed before a kill are learned once more with
        the others, from the checkpoint, so that these come out the same."""
        known = self.library.names()
        if all(one.name in known for one in group):
            return
        self._now("learning " + " ".join(f"<{one.name}>" for one in group))
        trained, seconds = self._train(group, self.learned[:start])
        for one, learned in zip(group, trained, strict=True):
            if one.name not in known:
                self._commit(one, learned, seconds / len(group))
        discard_checkpoint(self._training)
        self.learned = self.library.learned()

    def _train(
        self, group: Sequence[ConceptSpec], earlier: Sequence[TrainedConcept]
    ) -> tuple[list[TrainedConcept], float]:
        """From the checkpoint, if there is one; also the seconds it takes, those before a kill included."""
        began, clock, seed = time.monotonic(), StepClock(), self.job.seed
        photos = [one.photos().trained for one in group]
        tasks = make_tasks(self.base, self.method, photos, earlier, seed=seed, calibration=self.calibration)

        def on_step(done: int, steps: int, logs: Mapping[str, float]) -> None:
            clock.tick(steps)
            self._now(self.doing, len(group) * done / steps)

        settings = TrainingSettings(seed=seed, gradient_checkpointing=self.base.profile.gradient_checkpointing)
        trained = train(self.base, self.method, tasks, earlier, settings, self._training, on_step=on_step)
        return trained, time.monotonic() - began + clock.missed

    def _commit(self, one: ConceptSpec, learned: TrainedConcept, seconds: float) -> None:
        photos = one.photos()
        sources = [{"source": photo.source, "sha256": photo.sha256} for photo in photos.trained.photos]
        settings = {"seed": self.job.seed, "seconds": round(seconds, 3), "held_out": photos.held_out}
        self.library.commit(learned, sources, settings, self._reference(one))

    def _score(self, count: int, memory: PeakMemory) -> None:
        """Score the concept learned last after `count` concepts, at a full evaluation all of them."""
        if str(count) in self.folder.rows:
            return
        self._now(f"scoring after {count}")
        with ExitStack() as stack:
            began = time.monotonic()
            with PeakMemory(self.base.device) as fusing:  # on entering, the concepts are fused
                composed = stack.enter_context(Composed(self.base, self.method, self.learned[:count]))
            fused = time.monotonic() - began
            row, strips = self._evaluate(composed, self.members[:count], count in self.full)
        self.features |= {f"general/{count}/image": value for value in row.features.pop(None, {}).values()}
        for name, features in row.features.items():
            self.features |= {f"pictures/{count}/{name}/{kind}": value for kind, value in features.items()}
        costs = self.folder.costs
        costs["peak_memory_bytes"] = max(costs["peak_memory_bytes"], memory.peak)
        costs["draw_seconds_per_picture"] = row.seconds / row.num_images
        if self.method.fuses:
            costs |= {"fusion_seconds": fused, "fusion_peak_bytes": fusing.peak - fusing.start}
        costs |= self._kept()
        self.folder.write_row(count, row.scores(), self.features, strips)

    def _score_alone(self) -> None:
        """Score each concept with no other in the model, trained as if it were the first."""
        known = {} if self.method.independent else scores_of_other_orders(self.job, self.sequence)
        known |= scores_of_first(self.folder, self.method, self.members[0].name)
        for one, learned in zip(self.members, self.learned, strict=True):
            if one.name in self.folder.alone:
                continue
            scores = known.get(one.name)
            if scores is None:
                if not self.method.independent:
                    self._now(f"learning <{one.name}> alone")
                    learned = self._train([one], [])[0][0]
                self._now(f"scoring <{one.name}> alone")
                with Composed(self.base, self.method, [learned]) as composed:
                    scores = self._evaluate(composed, [one], full=False)[0].concepts[one.name]
            self.folder.write_alone(one.name, scores)
            discard_checkpoint(self._training)

    def _evaluate(
        self, composed: Composed, members: Sequence[ConceptSpec], full: bool
    ) -> tuple[EvalRow, dict[str, Image.Image]]:
        """The row, and an image strip of each of its cells."""
        strips: dict[str, Image.Image] = {}

        def on_images(name: str | None, images: Tensor) -> None:
            if name is not None:
                strips[name] = image_strip(images, SHOWN)

        references = {one.name: self._reference(one) for one in members}
        prompts = {one.name: self._prompts(one) for one in (members if full else members[-1:])}
        combined = self._combined(members) if full else None
        settings = self.job.eval_settings
        row = evaluate(
            composed, references, self.encoders, settings, on_images, prompts=prompts, control=full, combined=combined
        )
        return row, strips

    def _prompts(self, one: ConceptSpec) -> EvalPrompts:
        name, settings = self.method.prompt_name(one.name, one.class_noun), self.job.eval_settings
        chosen, templates = prompt_set(self.encoders.prompts), settings.templates or one.templates
        return concept_prompts(name, one.class_noun, chosen, settings.num_images, kind=one.kind, templates=templates)

    def _combined(self, members: Sequence[ConceptSpec]) -> dict[tuple[str, ...], EvalPrompts]:
        """Prompts that name several of the objects."""
        nouns = {one.name: one.class_noun for one in members if one.kind == "thing"}
        names = {name: self.method.prompt_name(name, noun) for name, noun in nouns.items()}
        chosen, count = prompt_set(self.encoders.prompts), min(SHOWN, self.job.eval_settings.num_images)
        return combined_prompts(names, nouns, chosen, count)

    def _kept(self) -> dict[str, dict[str, Any]]:
        """What each concept took to train and takes to store."""
        entries = self.library.concepts()
        return {
            "seconds": {name: entry.settings["seconds"] for name, entry in entries.items()},
            "bytes": {name: entry.stored_bytes for name, entry in entries.items()},
        }

    def _reference(self, one: ConceptSpec) -> dict[str, Tensor]:
        """Features of the images the concept is scored against; computed once."""
        prefix = f"references/{one.name}/"
        known = {key.removeprefix(prefix): value for key, value in self.features.items() if key.startswith(prefix)}
        if not known:
            known = reference_features(self.encoders, photos_tensor(one.photos().references, self.base.resolution))
            self.features |= {prefix + kind: value for kind, value in known.items()}
        return known

    def _now(self, doing: str, learning: float = 0.0) -> None:
        """Tell what is done; `learning` are concepts' worth of training beyond those that are learned."""
        self.doing, count = doing, len(self.members)
        parts = [len(self.learned), max((int(state) for state in self.folder.rows), default=0)]
        if self.job.alone:
            parts.append(len(self.folder.alone))
        self.on_progress(Progress((sum(parts) + learning) / len(parts), count, doing))

    @property
    def _training(self) -> Path:
        return self.folder.path / "training"


def groups(method: Method, members: Sequence[ConceptSpec]) -> list[tuple[int, Sequence[ConceptSpec]]]:
    """The concepts that learn together, each group with the number of concepts before it."""
    size = len(members) if method.trains_jointly else TOGETHER if method.concurrent else 1
    return [(start, members[start : start + size]) for start in range(0, len(members), size)]


@lru_cache(maxsize=1)
def _opened(base: str, weights: Weights | None) -> tuple[Base, Encoders]:
    """Jobs of one process share the base."""
    opened = base_named(base, weights)
    return opened, encoders_of(opened)
