"""The one training loop. It knows no method: a method gives deltas, tokens, parameter groups and a penalty."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mnemon.adapters import attach, fold
from mnemon.errors import MnemonError
from mnemon.methods.base import Learned, Learner, Method
from mnemon.models.base import Base, Tokens
from mnemon.training.accelerator import make_accelerator
from mnemon.training.examples import Batch, Examples, draw_batch
from mnemon.training.loss import denoising_loss
from mnemon.training.resume import Snapshots, run_identity
from mnemon.training.settings import TrainingSettings

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the steps done, the steps in all, and {"loss", "penalty", "rate"}."""
OnPreview = Callable[[int], None]
"""Called with the steps done, while the base draws as if the concept had been finished now."""


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
        prior: class pictures for prior preservation (DreamBooth, arXiv 2208.12242), as many a step as of the concept.

    Raises:
        MnemonError: pictures and prompts do not pair, a prompt names an unknown concept, the loss is not finite, or the
            snapshot in `folder` is damaged.
    """
    settings = settings or TrainingSettings()
    examples = Examples(latents, prompts)
    learner = method.begin(name, noun, base, earlier, _generator(base, settings.seed, name, "start"))
    run = _Run(base, method, learner, examples, prior, settings, folder)
    draws = _generator(base, settings.seed, name, "draws")
    identity = run_identity(base, method, name, noun, [examples] + ([prior] if prior else []), earlier, settings)
    snapshots = Snapshots(folder, identity, learner, run.optimizer, draws, run.scaler)
    with _prepared(base, method, learner, earlier, settings):
        run.tokens = {one.name: _on(base, one.tokens) for one in earlier}
        for step in range(snapshots.restore(), run.steps):
            logs = run.step(step, name, draws)
            done = step + 1
            if done == run.steps or snapshots.age >= settings.snapshot_seconds:
                snapshots.save(done)
            if on_preview and settings.preview_every and done % settings.preview_every == 0:
                run.preview(name, draws, partial(on_preview, done))
            if on_step:
                on_step(done, run.steps, logs)
    run.accelerator.end_training()
    return learner.finish()


class _Run:
    """What the steps of one run share."""

    def __init__(
        self,
        base: Base,
        method: Method,
        learner: Learner,
        examples: Examples,
        prior: Examples | None,
        settings: TrainingSettings,
        folder: Path | None,
    ) -> None:
        self.base, self.learner, self.examples, self.prior, self.settings = base, learner, examples, prior, settings
        self.steps = method.steps if settings.steps is None else settings.steps
        self.batch = method.batch if settings.batch is None else settings.batch
        if settings.accumulate > self.batch:
            raise MnemonError(f"A batch of {self.batch} cannot be computed in {settings.accumulate} parts.")
        self.tokens: dict[str, Tokens] = {}
        # The optimiser comes after the learner, whose parameters it holds.
        self.optimizer = torch.optim.AdamW(learner.parameter_groups(), weight_decay=0.0, fused=True)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.accelerator = make_accelerator(base.device, settings, folder)
        self.stepper = self.accelerator.prepare(self.optimizer)
        if settings.tensorboard:
            self.accelerator.init_trackers("tensorboard")

    @property
    def scaler(self) -> "torch.amp.GradScaler | None":
        """The loss scaler of fp16."""
        return self.accelerator.scaler

    def step(self, step: int, name: str, draws: torch.Generator) -> dict[str, float]:
        """One step of the optimiser; returns what is worth logging."""
        factor = self.settings.rate_factor(step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = draw_batch(self.base, self.examples, self.prior, self.settings.prior_weight, self.batch, draws)
        loss, penalty = torch.zeros(()), torch.zeros(())
        for part in batch.parts(self.settings.accumulate):
            with self.accelerator.accumulate(self.learner):
                losses = self._losses(part, name, draws)
                extra = self.learner.penalty()
                # accelerate divides by the number of parts, but the weights of a batch's rows add up over its parts.
                self.accelerator.backward(losses * self.settings.accumulate + extra)
                loss, penalty = loss + losses.detach(), penalty + extra.detach() / self.settings.accumulate
                self.stepper.step()
                self.stepper.zero_grad()
        self.learner.after_step()
        # Read only now: a GPU is waited for once a step. What a bad loss has done to the learner is not kept.
        logs = {"loss": loss.item(), "penalty": penalty.item(), "rate": self.optimizer.param_groups[0]["lr"]}
        self._check(logs["loss"] + logs["penalty"], step, name)
        self.accelerator.log(logs, step=step)
        return logs

    def preview(self, name: str, draws: torch.Generator, draw: Callable[[], None]) -> None:
        """Let `draw` see the base with the concept as it would be kept now."""
        self.learner.eval()
        with torch.no_grad():
            self._say(name, draws)
            draw()
        self.learner.train()

    def _losses(self, part: Batch, name: str, draws: torch.Generator) -> Tensor:
        """The weighted sum of the part's denoising losses."""
        self._say(name, draws)
        with self.accelerator.autocast():
            condition = self.base.encode_prompts(part.prompts)
            losses = denoising_loss(
                self.base, part.latents, part.noise, part.timesteps, condition, self.settings.min_snr
            )
        return (losses * part.weights).sum()

    def _say(self, name: str, draws: torch.Generator) -> None:
        """Put the learner's deltas and tokens of this moment into the base; in fp32, so outside of autocast."""
        self.learner.before_step(draws)
        self.base.set_tokens({**self.tokens, name: self.learner.tokens()})

    def _check(self, loss: float, step: int, name: str) -> None:
        if not math.isfinite(loss):
            raise MnemonError(
                f"The loss of '{name}' is {loss} at step {step + 1}: the training diverged. Use lower learning rates."
            )


@contextmanager
def _prepared(
    base: Base, method: Method, learner: Learner, earlier: Sequence[Learned], settings: TrainingSettings
) -> Iterator[None]:
    """The base with the earlier concepts folded in and the learner's deltas attached; restored in any case."""
    tokens, sites = base.tokens, base.sites()
    with ExitStack() as undo:
        undo.callback(base.set_tokens, tokens)
        undo.enter_context(fold(sites, method.compose(earlier)))
        undo.enter_context(attach(sites, learner.deltas()))
        if settings.gradient_checkpointing:
            undo.callback(base.gradient_checkpointing, False)
            base.gradient_checkpointing(True)
        yield


def _generator(base: Base, seed: int, name: str, purpose: str) -> torch.Generator:
    """Random numbers of their own for each concept and purpose: two concepts must not start at the same token."""
    digest = hashlib.sha256(f"{seed}/{name}/{purpose}".encode()).digest()
    return torch.Generator(base.device).manual_seed(int.from_bytes(digest[:7]))


def _on(base: Base, tokens: Tokens) -> dict[str, Tensor]:
    return {encoder: vectors.to(base.device) for encoder, vectors in tokens.items()}
