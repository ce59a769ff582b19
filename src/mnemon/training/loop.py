"""The one training loop. It knows no method: a method gives deltas, tokens, parameter groups and a penalty."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mnemon.errors import MnemonError, WriteError
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base
from mnemon.training.run import Run, StoppingCriterion
from mnemon.training.settings import TrainingSettings
from mnemon.training.tasks import ConceptTask

log = logging.getLogger("mnemon")
OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the steps done, the steps in all, and {"loss", "penalty", "rate"}."""
OnPreview = Callable[[int], None]
"""Called with the steps done, while the base generates as if the training had ended now."""


def train(
    base: Base,
    method: Method,
    tasks: Sequence[ConceptTask],
    earlier: Sequence[TrainedConcept] = (),
    settings: TrainingSettings | None = None,
    folder: Path | None = None,
    *,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    stopping: StoppingCriterion | None = None,
) -> list[TrainedConcept]:
    """Learn one concept, or several in the same steps, on top of `earlier` ones; returns them in the order of `tasks`.

    With methods that train concepts concurrently every step has a batch of each task,
    and an image passes its own concept's adapters only. With those that train all concepts jointly every step has one
    batch of all concepts' images mixed, and there are as many steps for each concept as alone. The order of `tasks`
    changes nothing else. When this returns or raises, the base is as it was before.

    Args:
        base: stays frozen; while training the earlier concepts are merged and the learners' deltas attached.
        method: says what is trained.
        tasks: from `make_tasks`, or with latents (n, channels, height, width) from `base.encode_images` and prompts
            that name the concept as `method.prompt_name` does.
        earlier: the concepts that the model has already, in order.
        settings: of the loop.
        folder: for checkpoints; None keeps none. A run that was killed goes on from there to the same weights, bit for
            bit. One that cannot be written costs a warning. When the concepts are committed, call
            `discard_checkpoint(folder)`.
        on_step, on_preview: progress and preview images; previews are for a single task. What `on_step` raises ends the
            run, with a checkpoint of the steps taken.
        stopping: may end the run before its last step.

    Raises:
        MnemonError: the method cannot work on the base or not on several concepts, a prompt names an unknown concept,
            the loss is not finite, or the checkpoint in `folder` is damaged or has more steps already.
    """
    method.check_base(base)
    _check_concurrent(method, tasks, earlier)
    settings = settings or TrainingSettings()
    if settings.masked_loss and all(task.examples.masks is None for task in tasks):
        raise MnemonError("A masked loss needs masks: give the tasks some, as `make_tasks` does with `masked`.")
    ordered = sorted(tasks, key=lambda task: task.name)
    run = Run(base, method, ordered, earlier, settings, folder, stopping)
    with run.prepared():
        run.check_prompts()
        run.on_train_start()
        done = run.checkpoints.restore(run.steps)
        while done < run.steps and not run.should_stop(done):
            logs = run.step(done)
            done += 1
            if done == run.steps or run.checkpoints.age >= settings.checkpoint_seconds:
                run.checkpoints.save(done)
            if on_preview and len(ordered) == 1 and settings.preview_every and done % settings.preview_every == 0:
                _preview(run, partial(on_preview, done))
            if on_step:
                try:
                    on_step(done, run.steps, logs)
                except BaseException:  # whoever ends the run between two steps loses none of them
                    run.checkpoints.save(done)
                    raise
        if done < run.steps:
            run.checkpoints.save(done)
        run.on_train_end()
    run.end()
    learned = run.export()
    return [learned[task.name] for task in tasks]


def _preview(run: Run, look: Callable[[], None]) -> None:
    try:
        run.preview(look)
    except WriteError as error:
        log.warning("%s The training goes on without this preview.", error)


def _check_concurrent(method: Method, tasks: Sequence[ConceptTask], earlier: Sequence[TrainedConcept]) -> None:
    if method.trains_jointly and earlier:
        raise MnemonError(
            f"The method '{method.name}' learns all its concepts at once, and this library has some already: "
            "give all of them in one list, for a new library."
        )
    if len(tasks) > 1 and not method.concurrent:
        raise MnemonError(f"The method '{method.name}' learns one concept after another, not several together.")
