"""One run of the training loop: what its steps share, and what one step does."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mnemon.adapters import merge
from mnemon.errors import MnemonError, WriteError
from mnemon.files import writing
from mnemon.methods.base import Losses, Method, Start, Step, TrainedConcept
from mnemon.models.base import Base, Tokens
from mnemon.models.layers import every_layer
from mnemon.seeding import seeded_generator
from mnemon.training.accelerator import make_accelerator
from mnemon.training.ema import Ema
from mnemon.training.examples import Batch, Examples, draw_batch, joined, without_captions
from mnemon.training.identity import EARLY_STOPPING, run_identity
from mnemon.training.learner_group import LearnerGroup
from mnemon.training.loss import denoising_loss
from mnemon.training.optimizers import make_optimizer
from mnemon.training.penalty_meter import PenaltyMeter
from mnemon.training.prompt_check import check_prompts
from mnemon.training.resume import Checkpoints
from mnemon.training.settings import TrainingSettings
from mnemon.training.tasks import ConceptTask

T = TypeVar("T")
log = logging.getLogger("mnemon")


@dataclass(frozen=True)
class StoppingCriterion:
    """When to stop before the last step.

    Attributes:
        reached: called with the steps done, while the base generates as if the training had ended now. It must give the
            same answer for the same weights: a resumed run asks again.
        every: steps from one check to the next.
        name: identifies the criterion; a run with another one starts anew.
    """

    reached: Callable[[int], bool]
    every: int
    name: str


class Run:
    """What the steps of one run share."""

    def __init__(
        self,
        base: Base,
        method: Method,
        tasks: Sequence[ConceptTask],
        earlier: Sequence[TrainedConcept],
        settings: TrainingSettings,
        folder: Path | None,
        stopping: StoppingCriterion | None,
    ) -> None:
        self.base, self.method, self.tasks, self.earlier = base, method, tasks, earlier
        self.settings, self.stopping, self.calibration = settings, stopping, tasks[0].calibration
        self.sources, self.steps, self.batch_size = _amounts(method, tasks, settings)
        self.group = self._learners()
        self.meter = PenaltyMeter(self.group, base.device)
        self.rng = self.generator(self._names, "draws")
        self.earlier_tokens: dict[str, Tokens] = {}
        self.progress = 0.0
        # The optimiser comes after the learners, whose parameters it holds.
        self.optimizer = make_optimizer(settings.optimizer, self.group.parameter_groups(), base.device)
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.accelerator = make_accelerator(base.device, settings, folder)
        self.stepper = self.accelerator.prepare(self.optimizer)
        self._tracks, self._folder = settings.tensorboard, folder
        self._track(lambda: self.accelerator.init_trackers("tensorboard"))
        identity = run_identity(base, method, tasks, earlier, settings)
        if stopping is not None:
            identity[EARLY_STOPPING] = stopping.name
        modules: dict[str, nn.Module] = {"learner": self.group, "meter": self.meter}
        self.ema = Ema(list(self.group.parameters()), settings.ema_decay) if settings.ema_decay else None
        modules |= {} if self.ema is None else {"ema": self.ema}
        self.checkpoints = Checkpoints(
            folder, identity, modules, self.optimizer, self.rng, scaler=self.accelerator.scaler
        )

    def _learners(self) -> LearnerGroup:
        starts = [
            Start(task.name, task.class_noun, self.base, self.earlier, self.generator(task.name, "start"))
            for task in self.tasks
        ]
        return LearnerGroup(self.method.begin_together(starts), shared=self.method.trains_jointly)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """The base with the earlier concepts merged and the learners' deltas attached; restored in any case."""
        base, method = self.base, self.method
        with ExitStack() as undo:
            self.earlier_tokens = {
                name: {encoder: vectors.to(base.device) for encoder, vectors in tokens.items()}
                for name, tokens in method.tokens(self.earlier).items()
            }
            undo.enter_context(base.using_tokens(self.earlier_tokens))
            if not method.on_bare_base:
                undo.enter_context(merge(every_layer(base), method.merged_changes(base, self.earlier)))
            self.group.attach(base)
            undo.callback(self.group.detach)
            if self.settings.gradient_checkpointing:
                undo.callback(base.gradient_checkpointing, False)
                base.gradient_checkpointing(True)
            yield

    def check_prompts(self) -> None:
        """Tokenize every prompt once, before it is drawn at some step.

        Raises:
            MnemonError: one is too long or names an unknown concept; the error says where it was read.
        """
        self.base.set_tokens({**self.earlier_tokens, **self.group.tokens()})
        for task in self.tasks:
            for examples in filter(None, (task.examples, task.prior)):
                check_prompts(self.base, examples.prompts, task.sources)

    def on_train_start(self) -> None:
        """Let the learners look at their images before the first step."""
        general = None if self.calibration is None else self._probe(0, self.calibration)
        self.group.on_train_start(self._probes(), general, self.generator(self._names, "prepare"))

    def on_train_end(self) -> None:
        """Give the learners their averages, if there are any, and let them look at their images once more."""
        if self.ema is not None:
            self.ema.apply_to_parameters()
        self.group.on_train_end(self._probes(), self.generator(self._names, "conclude"))

    def export(self) -> dict[str, TrainedConcept]:
        """What is kept, by name."""
        facts = self.meter.facts()
        return {name: replace(one, facts={**one.facts, **facts}) for name, one in self.group.export().items()}

    def step(self, step: int) -> dict[str, float]:
        """One step of the optimiser; returns what is worth logging."""
        self.progress = step / self.steps
        factor = self.settings.lr_factor(step, self.steps)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor
        parts = self.settings.gradient_accumulation_steps
        loss, penalty = torch.zeros(()), torch.zeros(())
        batch, state = self._draw_batch(), self.rng.get_state()
        for part in batch.parts(parts):
            self.rng.set_state(state)  # masks and prompts that a method samples are the same in every part
            with self.accelerator.accumulate(self.group):
                denoising, seen = self._loss(part, self.rng)
                regularization = self.group.regularization_loss(seen)
                # accelerate divides by the number of parts, but the weights of a batch's rows add up over its parts.
                total = denoising * parts + regularization
                if total.requires_grad:  # not where a part has no caption, and only the token is trained
                    self.accelerator.backward(total)
                self.meter.add(denoising, parts)
                loss, penalty = loss + denoising.detach(), penalty + regularization.detach() / parts
                if self.accelerator.sync_gradients and self.settings.max_grad_norm is not None:
                    self.accelerator.clip_grad_norm_(self.group.parameters(), self.settings.max_grad_norm)
                self.stepper.step()
                self.stepper.zero_grad()
        self.group.after_step((step + 1) / self.steps)
        if self.ema is not None:
            self.ema.update()
        # Read only now: a GPU is waited for once a step. What a bad loss has done to the learner is not kept.
        logs = {
            "loss": loss.item(),
            "penalty": penalty.item(),
            "rate": self.optimizer.param_groups[0]["lr"],
        }
        self._check(logs["loss"] + logs["penalty"], step)
        self._track(lambda: self.accelerator.log(logs, step=step))
        return logs

    def end(self) -> None:
        """Close what the run has open."""
        self._track(self.accelerator.end_training)

    def _track(self, write: Callable[[], None]) -> None:
        """Write something for TensorBoard, if it is wanted; what cannot be written does not end the run."""
        if self._tracks and self._folder is not None:
            try:
                with writing(self._folder):
                    write()
            except WriteError as error:
                log.warning("%s The training goes on without TensorBoard.", error)
                self._tracks = False

    def should_stop(self, done: int) -> bool:
        """Whether to stop after `done` steps. Asked before a step, so that a resumed run asks it too."""
        if self.stopping is None or done == 0 or done % self.stopping.every:
            return False
        return self.preview(partial(self.stopping.reached, done))

    def preview(self, look: Callable[[], T]) -> T:
        """Call `look` with the concept in the base as it would be kept now; returns its result."""
        self.group.eval()
        with torch.no_grad(), nullcontext() if self.ema is None else self.ema.applied():
            self._update_base(self.rng)
            result = look()
        self.group.train()
        return result

    def generator(self, name: str, purpose: str) -> torch.Generator:
        """Random numbers of their own for each concept and purpose: two concepts must not start at the same token."""
        return seeded_generator(self.settings.seed, name, purpose, self.base.device)

    @property
    def _names(self) -> str:
        return " ".join(task.name for task in self.tasks)

    def _draw_batch(self) -> Batch:
        """This step's rows: a batch from each source."""
        weight, size = self.settings.prior_loss_weight, self.batch_size
        batch = Batch.cat(
            [draw_batch(self.base, examples, prior, weight, size, self.rng) for examples, prior in self.sources]
        )
        rate = self.settings.caption_dropout
        return without_captions(batch, rate, self.rng) if rate else batch

    def _loss(self, part: Batch, generator: torch.Generator) -> tuple[Tensor, Step]:
        """The weighted sum of the part's denoising losses, and what it was computed on."""
        self._update_base(generator)
        self.group.set_adapter_index(part.tasks)
        base = self.base
        with self.accelerator.autocast():
            condition = base.encode_prompts(part.prompts)
            losses = denoising_loss(
                base, part.latents, part.noise, part.timesteps, condition, self.settings.snr_gamma, part.masks
            )
        noisy = base.schedule.add_noise(part.latents, part.noise, part.timesteps)
        without = partial(self.group.without, base)
        step = Step(base, noisy, part.timesteps, without, condition, part.tasks, part.shares, self.progress)
        return (losses * part.weights).sum(), step

    def _probes(self) -> dict[str, Losses]:
        return {task.name: self._probe(number, task.examples) for number, task in enumerate(self.tasks)}

    def _probe(self, number: int, examples: Examples) -> Losses:
        """The loss of single samples from `examples`, under the adapters of task `number`."""

        def losses(generator: torch.Generator) -> Tensor:
            batch = draw_batch(self.base, examples, None, 0.0, 1, generator)
            batch.tasks.fill_(number)
            return self._loss(batch, generator)[0]

        return losses

    def _update_base(self, generator: torch.Generator) -> None:
        """Put the learners' deltas and tokens of this moment into the base; in fp32, so outside of autocast."""
        self.group.before_step(generator)
        self.base.set_tokens({**self.earlier_tokens, **self.group.tokens()})

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            names = " and ".join(f"'{task.name}'" for task in self.tasks)
            raise MnemonError(
                f"The loss of {names} is {loss} at step {step + 1}: the training diverged. Use lower learning rates."
            )


def _amounts(
    method: Method, tasks: Sequence[ConceptTask], settings: TrainingSettings
) -> tuple[list[tuple[Examples, Examples | None]], int, int]:
    """The sources of a step (examples and prior), the steps in all, and the batch size from each source."""
    sources = [(task.examples, task.prior) for task in tasks]
    steps = method.steps if settings.steps is None else settings.steps
    batch = method.batch_size if settings.batch_size is None else settings.batch_size
    if settings.gradient_accumulation_steps > batch:
        raise MnemonError(f"A batch of {batch} cannot be computed in {settings.gradient_accumulation_steps} parts.")
    if method.trains_jointly:  # the images of all concepts mixed, and as many steps for each as alone
        examples, prior = (joined(parts) for parts in zip(*sources, strict=True))
        assert examples is not None
        return [(examples, prior)], steps * len(tasks), batch
    return sources, steps, batch
