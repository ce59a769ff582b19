"""The one training loop. It knows no method: a method gives deltas, tokens, parameter groups and a penalty."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mnemon.adapters import fold
from mnemon.errors import MnemonError
from mnemon.methods.base import Learned, Losses, Method, Step
from mnemon.models.base import Base, Tokens
from mnemon.models.layers import every_layer
from mnemon.training.accelerator import make_accelerator
from mnemon.training.examples import Batch, Examples, draw_batch, joined
from mnemon.training.lessons import Group, Lesson
from mnemon.training.loss import denoising_loss
from mnemon.training.resume import Snapshots, run_identity
from mnemon.training.settings import TrainingSettings

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the steps done, the steps in all, and {"loss", "penalty", "rate"}."""
OnPreview = Callable[[int], None]
"""Called with the steps done, while the base draws as if the concept had been finished now."""
T = TypeVar("T")


@dataclass(frozen=True)
class Until:
    """When to stop before the last step.

    Attributes:
        reached: asked with the steps done, while the base draws as if the concept had been finished now. It must give
            the same answer for the same weights: a run that goes on after a kill asks again.
        every: steps from one question to the next.
        name: what is asked for; a run that is asked something else starts anew.
    """

    reached: Callable[[int], bool]
    every: int
    name: str


def train(
    base: Base,
    method: Method,
    name: str,
    noun: str | None,
    latents: Tensor,
    prompts: Sequence[str],
    earlier: Sequence[Learned] = (),
    settings: TrainingSettings | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    prior: Examples | None = None,
    calibration: Examples | None = None,
) -> Learned:
    """Learn one concept on top of `earlier` ones. When this returns or raises, the base is as it was before.

    Args:
        base: stays frozen; while training the earlier concepts are folded in and the learner's deltas attached.
        method: says what is trained.
        name, noun: the concept's.
        latents: its pictures, (n, channels, height, width), from `base.encode_images`.
        prompts: one for each of them, naming the concept as `method.prompt_name` does.
        earlier: the concepts that the model has already, in order.
        settings: of the loop.
        folder: where snapshots are kept; None keeps none. A run that was killed goes on from there to the same weights,
            bit for bit. When the concept is safe, call `discard_snapshot(folder)`.
        on_step, on_preview: for progress and pictures.
        prior: class pictures for prior preservation (DreamBooth, arXiv 2208.12242), or rehearsed pictures of earlier
            concepts, as many a step as of the concept.
        calibration: pictures of diverse things, for methods that ask for them.

    Raises:
        MnemonError: the method cannot work on the base, pictures and prompts do not pair, a prompt names an unknown
            concept, the loss is not finite, or the snapshot in `folder` is damaged.
    """
    lesson = Lesson(name, noun, Examples(latents, prompts), prior)
    return train_together(base, method, [lesson], earlier, settings, folder, on_step, on_preview, calibration)[0]


def train_together(
    base: Base,
    method: Method,
    lessons: Sequence[Lesson],
    earlier: Sequence[Learned] = (),
    settings: TrainingSettings | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    calibration: Examples | None = None,
    until: Until | None = None,
) -> list[Learned]:
    """Learn several concepts in the same steps; returns them in the order of `lessons`, which changes nothing else.

    For methods whose concepts do not wait for one another (`on_bare_base` and `order_free`): every step has a batch of
    each, and a picture passes the changes of its own concept only. And for those that learn all concepts `at_once`:
    every step has one batch of all concepts' pictures mixed, and there are as many steps for each concept as alone.
    Arguments and errors as for `train`; previews are drawn of a single lesson only, and `until` stops one early.
    """
    method.check_base(base)
    _check_together(method, lessons, earlier)
    settings = settings or TrainingSettings()
    ordered = sorted(lessons, key=lambda lesson: lesson.name)
    run = _Run(base, method, ordered, earlier, settings, folder, calibration, until)
    with _prepared(base, method, run, earlier, settings):
        run.prepare()
        done = run.snapshots.restore()
        while done < run.steps and not run.reached(done):
            logs = run.step(done)
            done += 1
            if done == run.steps or run.snapshots.age >= settings.snapshot_seconds:
                run.snapshots.save(done)
            if on_preview and len(ordered) == 1 and settings.preview_every and done % settings.preview_every == 0:
                run.preview(partial(on_preview, done))
            if on_step:
                on_step(done, run.steps, logs)
        if done < run.steps:
            run.snapshots.save(done)
        run.conclude()
    run.accelerator.end_training()
    learned = run.group.finish()
    return [learned[lesson.name] for lesson in lessons]


class _Run:
    """What the steps of one run share."""

    def __init__(
        self,
        base: Base,
        method: Method,
        lessons: Sequence[Lesson],
        earlier: Sequence[Learned],
        settings: TrainingSettings,
        folder: Path | None,
        calibration: Examples | None,
        until: Until | None,
    ) -> None:
        self.until = until
        self.base, self.lessons, self.settings, self.calibration = base, lessons, settings, calibration
        self.steps = method.steps if settings.steps is None else settings.steps
        self.sources = [(lesson.examples, lesson.prior) for lesson in lessons]
        if method.at_once:  # the pictures of all concepts mixed, and as many steps for each as alone
            examples, prior = (joined(parts) for parts in zip(*self.sources, strict=True))
            assert examples is not None
            self.sources = [(examples, prior)]
            self.steps *= len(lessons)
        self.batch = method.batch if settings.batch is None else settings.batch
        if settings.accumulate > self.batch:
            raise MnemonError(f"A batch of {self.batch} cannot be computed in {settings.accumulate} parts.")
        starts = [self.generator(lesson.name, "start") for lesson in lessons]
        names = [(lesson.name, lesson.noun) for lesson in lessons]
        self.group = Group(method.begin_together(names, base, earlier, starts), shared=method.at_once)
        self.draws = self.generator(" ".join(lesson.name for lesson in lessons), "draws")
        self.earlier: dict[str, Tokens] = {}
        self.progress = 0.0
        # The optimiser comes after the learners, whose parameters it holds.
        self.optimizer = torch.optim.AdamW(self.group.parameter_groups(), weight_decay=0.0, fused=True)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.accelerator = make_accelerator(base.device, settings, folder)
        self.stepper = self.accelerator.prepare(self.optimizer)
        if settings.tensorboard:
            self.accelerator.init_trackers("tensorboard")
        identity = run_identity(base, method, lessons, earlier, settings, calibration)
        if until is not None:  # a run without may go on from the snapshot of one with it
            identity["goal"] = until.name
        scaler = self.accelerator.scaler  # of fp16
        self.snapshots = Snapshots(folder, identity, self.group, self.optimizer, self.draws, scaler)

    def prepare(self) -> None:
        """Let the learners look at their pictures before the first step."""
        general = None if self.calibration is None else self._probe(0, self.calibration)
        self.group.prepare(self._probes(), general, self.generator(self._names, "prepare"))

    def conclude(self) -> None:
        """Let the learners look at their pictures after the last step."""
        self.group.conclude(self._probes(), self.generator(self._names, "conclude"))

    def step(self, step: int) -> dict[str, float]:
        """One step of the optimiser; returns what is worth logging."""
        self.progress = step / self.steps
        factor = self.settings.rate_factor(step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        loss, penalty = torch.zeros(()), torch.zeros(())
        for part in self._draw().parts(self.settings.accumulate):
            with self.accelerator.accumulate(self.group):
                losses, seen = self._losses(part, self.draws)
                extra = self.group.penalty(seen)
                # accelerate divides by the number of parts, but the weights of a batch's rows add up over its parts.
                self.accelerator.backward(losses * self.settings.accumulate + extra)
                loss, penalty = loss + losses.detach(), penalty + extra.detach() / self.settings.accumulate
                self.stepper.step()
                self.stepper.zero_grad()
        self.group.after_step()
        # Read only now: a GPU is waited for once a step. What a bad loss has done to the learner is not kept.
        logs = {"loss": loss.item(), "penalty": penalty.item(), "rate": self.optimizer.param_groups[0]["lr"]}
        self._check(logs["loss"] + logs["penalty"], step)
        self.accelerator.log(logs, step=step)
        return logs

    def reached(self, done: int) -> bool:
        """Whether to stop after `done` steps. Asked before a step, so that a run that goes on asks it too."""
        if self.until is None or done == 0 or done % self.until.every:
            return False
        return self.preview(partial(self.until.reached, done))

    def preview(self, draw: Callable[[], T]) -> T:
        """Let `draw` see the base with the concept as it would be kept now; returns what it returns."""
        self.group.eval()
        with torch.no_grad():
            self._say(self.draws)
            drawn = draw()
        self.group.train()
        return drawn

    def generator(self, name: str, purpose: str) -> torch.Generator:
        """Random numbers of their own for each concept and purpose: two concepts must not start at the same token."""
        digest = hashlib.sha256(f"{self.settings.seed}/{name}/{purpose}".encode()).digest()
        return torch.Generator(self.base.device).manual_seed(int.from_bytes(digest[:7]))

    @property
    def _names(self) -> str:
        return " ".join(lesson.name for lesson in self.lessons)

    def _draw(self) -> Batch:
        """This step's rows: a batch from each source."""
        weight = self.settings.prior_weight
        return Batch.cat(
            [draw_batch(self.base, own, prior, weight, self.batch, self.draws) for own, prior in self.sources]
        )

    def _losses(self, part: Batch, generator: torch.Generator) -> tuple[Tensor, Step]:
        """The weighted sum of the part's denoising losses, and what it was computed on."""
        self._say(generator)
        self.group.route(part.lessons)
        base = self.base
        with self.accelerator.autocast():
            condition = base.encode_prompts(part.prompts)
            losses = denoising_loss(base, part.latents, part.noise, part.timesteps, condition, self.settings.min_snr)
        noisy = base.add_noise(part.latents, part.noise, part.timesteps)
        without = partial(self.group.without, base)
        step = Step(base, noisy, part.timesteps, without, condition, part.lessons, self.progress)
        return (losses * part.weights).sum(), step

    def _probes(self) -> dict[str, Losses]:
        return {lesson.name: self._probe(number, lesson.examples) for number, lesson in enumerate(self.lessons)}

    def _probe(self, number: int, examples: Examples) -> Losses:
        """The loss of single draws from `examples`, under the changes of lesson `number`."""

        def losses(generator: torch.Generator) -> Tensor:
            batch = draw_batch(self.base, examples, None, 0.0, 1, generator)
            batch.lessons.fill_(number)
            return self._losses(batch, generator)[0]

        return losses

    def _say(self, generator: torch.Generator) -> None:
        """Put the learners' deltas and tokens of this moment into the base; in fp32, so outside of autocast."""
        self.group.before_step(generator)
        self.base.set_tokens({**self.earlier, **self.group.tokens()})

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            names = " and ".join(f"'{lesson.name}'" for lesson in self.lessons)
            raise MnemonError(
                f"The loss of {names} is {loss} at step {step + 1}: the training diverged. Use lower learning rates."
            )


@contextmanager
def _prepared(
    base: Base, method: Method, run: _Run, earlier: Sequence[Learned], settings: TrainingSettings
) -> Iterator[None]:
    """The base with the earlier concepts folded in and the learners' deltas attached; restored in any case."""
    tokens = base.tokens
    with ExitStack() as undo:
        undo.callback(base.set_tokens, tokens)
        run.earlier = {name: _on(base, vectors) for name, vectors in method.tokens(earlier).items()}
        base.set_tokens(run.earlier)
        if not method.on_bare_base:
            undo.enter_context(fold(every_layer(base), method.compose(base, earlier)))
        run.group.attach(base)
        undo.callback(run.group.detach)
        if settings.gradient_checkpointing:
            undo.callback(base.gradient_checkpointing, False)
            base.gradient_checkpointing(True)
        yield


def _check_together(method: Method, lessons: Sequence[Lesson], earlier: Sequence[Learned]) -> None:
    if method.at_once and earlier:
        raise MnemonError(
            f"The method '{method.name}' learns all its concepts at once, and this library has some already: "
            "give all of them in one list, for a new library."
        )
    if len(lessons) > 1 and not (method.at_once or (method.on_bare_base and method.order_free)):
        raise MnemonError(f"The method '{method.name}' learns one concept after another, not several together.")


def _on(base: Base, tokens: Tokens) -> dict[str, Tensor]:
    return {encoder: vectors.to(base.device) for encoder, vectors in tokens.items()}
