"""The training loop of every stage of the recipe: Muon with gradient clipping, EMA, checkpoints, progress."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from mnemon.training.checkpoint import load_checkpoint, save_checkpoint
from mnemon.world.recipe.muon import Muon

Loss = Callable[[torch.Generator], tuple[Tensor, Mapping[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """`steps` of training: warm up to `lr`, hold it for the share `hold`, then decay linearly to `lr * floor`.

    `muon` multiplies the learning rate of the matrices that Muon trains; 0 trains everything with AdamW.
    """

    steps: int
    lr: float
    warmup: int = 100
    hold: float = 0.0
    floor: float = 0.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    muon: float = 0.0

    def optimizer(self, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
        if self.muon:
            return Muon(modules, self.lr, lr_multiplier=self.muon, betas=self.betas, weight_decay=self.weight_decay)
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = max(self.warmup, self.hold * self.steps)
        fall = max(0.0, (step - start) / max(1, self.steps - start))
        return self.lr * (1 - fall * (1 - self.floor))


@dataclass
class EMA:
    """An exponential moving average of a module's parameters, with a warm-up that forgets the initial weights."""

    module: nn.Module
    decay: float = 0.999
    shadow: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.shadow = copy.deepcopy(self.module).requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.parameters()), list(self.module.parameters()), weight)


def fit(
    name: str,
    folder: Path,
    modules: Mapping[str, nn.Module],
    loss: Loss,
    schedule: Schedule,
    *,
    seed: int,
    averages: Mapping[str, EMA] | None = None,
    checkpoint_seconds: float = 120.0,
) -> float:
    """Train `modules` in place, resuming from `folder/NAME.snapshot.safetensors` if it exists.

    Returns:
        Seconds of training over all runs.
    """
    path = folder / f"{name}.snapshot.safetensors"
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = schedule.optimizer(list(modules.values()))
    generator = torch.Generator().manual_seed(seed)
    checkpointed = dict(modules) | {f"{key}_average": average.shadow for key, average in (averages or {}).items()}
    state: dict[str, Any] = {"step": 0, "seconds": 0.0}
    if path.exists():
        state = load_checkpoint(path, checkpointed, optimizer, generator)
    started, saved = time.monotonic() - float(state["seconds"]), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[logs]}"), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=schedule.steps, completed=int(state["step"]), logs="")
        for step in range(int(state["step"]), schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(step)
            value, logs = loss(generator)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
            optimizer.step()
            for average in (averages or {}).values():
                average.update(step)
            if step % 10 == 0:
                text = " ".join(f"{key} {number:.4f}" for key, number in logs.items())
                progress.update(task, completed=step, logs=text)
            done = step + 1 == schedule.steps
            if done or time.monotonic() - saved > checkpoint_seconds:
                state = {"step": step + 1, "seconds": time.monotonic() - started}
                save_checkpoint(path, checkpointed, optimizer, generator, state)
                saved = time.monotonic()
                print(f"{name} step {step + 1} {state['seconds']:.0f} s", dict(logs), flush=True)
    return float(state["seconds"])


def random_rows(generator: torch.Generator, count: int, batch: int) -> Tensor:
    """`batch` random row numbers below `count`."""
    return torch.randint(count, (batch,), generator=generator)


Network = TypeVar("Network", bound=nn.Module)


def channels_last(module: Network) -> Network:
    """The memory layout in which convolutions are fastest here."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
