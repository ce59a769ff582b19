"""The learners of one run, and how they share one model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.adapters import Attached, PerSampleAdapters, attach
from mnemon.methods.base import Learner, Losses, Step, TrainedConcept
from mnemon.models.base import Base, Tokens


class LearnerGroup(nn.Module):
    """The learners of one run. With several, an image passes the changes of its own concept only, unless `shared`."""

    def __init__(self, learners: Sequence[Learner], shared: bool) -> None:
        super().__init__()
        self.learners = nn.ModuleList(learners)
        self._routed = len(learners) > 1 and not shared
        self._attached = Attached([])

    def __iter__(self) -> Iterator[Learner]:
        yield from self.learners  # type: ignore[misc]

    def attach(self, base: Base) -> None:
        """Put all learners' deltas to work, until `detach`."""
        sets = [learner.deltas() for learner in self]
        if self._routed:
            self._attached = PerSampleAdapters(base.target_modules(), sets)
        else:
            self._attached = attach(
                base.target_modules(), {target: delta for deltas in sets for target, delta in deltas.items()}
            )

    def detach(self) -> None:
        self._attached.remove()

    def set_adapter_index(self, tasks: Tensor) -> None:
        """Set the task number of each row of the next forward pass."""
        if isinstance(self._attached, PerSampleAdapters):
            self._attached.set_adapter_index(tasks)

    @contextmanager
    def without(self, base: Base) -> Iterator[None]:
        """The model without what is being learned."""
        self.detach()
        try:
            yield
        finally:
            self.attach(base)

    def tokens(self) -> dict[str, Tokens]:
        return {learner.name: learner.tokens() for learner in self}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Every learner's; a parameter that learners share is held once."""
        held: set[int] = set()
        groups = []
        for group in (group for learner in self for group in learner.parameter_groups()):
            own = [parameter for parameter in group["params"] if id(parameter) not in held]
            held.update(id(parameter) for parameter in own)
            if own:
                groups.append({**group, "params": own})
        return groups

    def on_train_start(self, losses: Mapping[str, Losses], general: Losses | None, generator: torch.Generator) -> None:
        for learner in self:
            learner.on_train_start(losses[learner.name], general, generator)

    def on_train_end(self, losses: Mapping[str, Losses], generator: torch.Generator) -> None:
        for learner in self:
            learner.on_train_end(losses[learner.name], generator)

    def before_step(self, generator: torch.Generator) -> None:
        for learner in self:
            learner.before_step(generator)

    def regularization_loss(self, step: Step) -> Tensor:
        return torch.stack([learner.regularization_loss(step).to(step.base.device) for learner in self]).sum()

    def after_step(self, progress: float) -> None:
        for learner in self:
            learner.after_step(progress)

    def export(self) -> dict[str, TrainedConcept]:
        """What is kept, by name."""
        return {learner.name: learner.export() for learner in self}
