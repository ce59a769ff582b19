"""The one training loop. It knows no method: a method gives deltas, tokens, parameter groups and a penalty."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from torch import Tensor

from mnemon.adapters import merge
from mnemon.errors import MnemonError
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base, Tokens
from mnemon.models.layers import every_layer
from mnemon.training.examples import Examples
from mnemon.training.learner_group import ConceptTask
from mnemon.training.run import Run, Until
from mnemon.training.settings import TrainingSettings

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the steps done, the steps in all, and {"loss", "penalty", "rate"}."""
OnPreview = Callable[[int], None]
"""Called with the steps done, while the base draws as if the concept had been finished now."""


def train(
    base: Base,
    method: Method,
    name: str,
    class_noun: str | None,
    latents: Tensor,
    prompts: Sequence[str],
    earlier: Sequence[TrainedConcept] = (),
    settings: TrainingSettings | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    prior: Examples | None = None,
    calibration: Examples | None = None,
) -> TrainedConcept:
    """Learn one concept on top of `earlier` ones. When this returns or raises, the base is as it was before.

    Args:
        base: stays frozen; while training the earlier concepts are folded in and the learner's deltas attached.
        method: says what is trained.
        name, class_noun: the concept's.
        latents: its images, (n, channels, height, width), from `base.encode_images`.
        prompts: one for each of them, naming the concept as `method.prompt_name` does.
        earlier: the concepts that the model has already, in order.
        settings: of the loop.
        folder: where snapshots are kept; None keeps none. A run that was killed goes on from there to the same weights,
            bit for bit. When the concept is safe, call `discard_checkpoint(folder)`.
        on_step, on_preview: for progress and images.
        prior: class images for prior preservation (DreamBooth, arXiv 2208.12242), or rehearsed images of earlier
            concepts, as many a step as of the concept.
        calibration: images of diverse things, for methods that ask for them.

    Raises:
        MnemonError: the method cannot work on the base, images and prompts do not pair, a prompt names an unknown
            concept, the loss is not finite, or the snapshot in `folder` is damaged.
    """
    task = ConceptTask(name, class_noun, Examples(latents, prompts), prior)
    return train_together(base, method, [task], earlier, settings, folder, on_step, on_preview, calibration)[0]


def train_together(
    base: Base,
    method: Method,
    tasks: Sequence[ConceptTask],
    earlier: Sequence[TrainedConcept] = (),
    settings: TrainingSettings | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    calibration: Examples | None = None,
    until: Until | None = None,
) -> list[TrainedConcept]:
    """Learn several concepts in the same steps; returns them in the order of `tasks`, which changes nothing else.

    For methods whose concepts do not wait for one another (`on_bare_base` and `order_free`): every step has a batch of
    each, and an image passes the changes of its own concept only. And for those that learn all concepts `at_once`:
    every step has one batch of all concepts' images mixed, and there are as many steps for each concept as alone.
    Arguments and errors as for `train`; previews are drawn of a single lesson only, and `until` stops one early.
    """
    method.check_base(base)
    _check_together(method, tasks, earlier)
    settings = settings or TrainingSettings()
    ordered = sorted(tasks, key=lambda task: task.name)
    run = Run(base, method, ordered, earlier, settings, folder, calibration, until)
    with _prepared(base, method, run, earlier, settings):
        run.prepare()
        done = run.checkpoints.restore()
        while done < run.steps and not run.reached(done):
            logs = run.step(done)
            done += 1
            if done == run.steps or run.checkpoints.age >= settings.checkpoint_seconds:
                run.checkpoints.save(done)
            if on_preview and len(ordered) == 1 and settings.preview_every and done % settings.preview_every == 0:
                run.preview(partial(on_preview, done))
            if on_step:
                on_step(done, run.steps, logs)
        if done < run.steps:
            run.checkpoints.save(done)
        run.on_train_end()
    run.accelerator.end_training()
    learned = run.group.finish()
    return [learned[task.name] for task in tasks]


@contextmanager
def _prepared(
    base: Base, method: Method, run: Run, earlier: Sequence[TrainedConcept], settings: TrainingSettings
) -> Iterator[None]:
    """The base with the earlier concepts folded in and the learners' deltas attached; restored in any case."""
    tokens = base.tokens
    with ExitStack() as undo:
        undo.callback(base.set_tokens, tokens)
        run.earlier = {name: _on(base, vectors) for name, vectors in method.tokens(earlier).items()}
        base.set_tokens(run.earlier)
        if not method.on_bare_base:
            undo.enter_context(merge(every_layer(base), method.compose(base, earlier)))
        run.group.attach(base)
        undo.callback(run.group.detach)
        if settings.gradient_checkpointing:
            undo.callback(base.gradient_checkpointing, False)
            base.gradient_checkpointing(True)
        yield


def _check_together(method: Method, tasks: Sequence[ConceptTask], earlier: Sequence[TrainedConcept]) -> None:
    if method.at_once and earlier:
        raise MnemonError(
            f"The method '{method.name}' learns all its concepts at once, and this library has some already: "
            "give all of them in one list, for a new library."
        )
    if len(tasks) > 1 and not (method.at_once or (method.on_bare_base and method.order_free)):
        raise MnemonError(f"The method '{method.name}' learns one concept after another, not several together.")


def _on(base: Base, tokens: Tokens) -> dict[str, Tensor]:
    return {encoder: vectors.to(base.device) for encoder, vectors in tokens.items()}
