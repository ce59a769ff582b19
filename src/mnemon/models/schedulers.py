"""diffusers' schedulers with exactly n timesteps for n steps, none below 0, the first at the noise that sampling starts
from, and each step to the next timestep of the list."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

SPACINGS = ("leading", "linspace", "trailing")
Shift = Callable[[int], float]
"""From the number of inference steps to μ: a flow's schedule is shifted towards noise by exp(μ)."""
Timesteps = np.ndarray[tuple[int], np.dtype[np.int64]]


def inference_timesteps(steps: int, config: Any, points: int) -> Timesteps:
    """Timesteps (steps,), falling, of a schedule with T training timesteps, 1 <= steps <= T.

    As diffusers has them (Lin et al., arXiv 2305.08891, table 2), with three exceptions. A single step begins at T - 1.
    Trailing timesteps do not go on to -1. And leading ones lie T / n apart where T // n, which diffusers takes, would
    leave out two steps or more at the noisy end: 334 steps of T = 1000 would begin at 667.

    Args:
        config: of the scheduler: `num_train_timesteps`, `timestep_spacing`, `steps_offset`.
        points: timesteps that the spacing divides T into; those after the first `steps` are left out.
    """
    whole, spacing = int(config.num_train_timesteps), config.timestep_spacing
    points = min(points, whole)
    if steps == 1:
        return np.array([whole - 1])
    if spacing == "trailing":
        return np.arange(whole, 0, -whole / steps)[:steps].round().astype(np.int64) - 1
    if spacing == "linspace":
        return np.linspace(0, whole - 1, points).round()[::-1][:steps].astype(np.int64)
    stride = whole // points if whole % points < 2 * (whole // points) else whole / points
    leading = np.floor(np.arange(points) * stride)[::-1][:steps].astype(np.int64)
    return leading + min(config.steps_offset, whole - 1 - leading[0])


class DDIM(DDIMScheduler):  # type: ignore[misc]
    """Deterministic DDIM steps (arXiv 2010.02502) to the list's next timestep, and from the last one to the image."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device | None = None) -> None:
        timesteps = inference_timesteps(num_inference_steps, self.config, points=num_inference_steps)
        self.num_inference_steps: int | Fraction = num_inference_steps
        self.timesteps = torch.from_numpy(timesteps).to(device)
        self._next = dict(pairwise([*timesteps.tolist(), -1]))

    def step(self, model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, **options: Any) -> Any:
        now, count = int(timestep), self.num_inference_steps
        # diffusers goes back by T // num_inference_steps, which need not lead to the list's next timestep.
        self.num_inference_steps = Fraction(self.config.num_train_timesteps, now - self._next[now])
        try:
            return super().step(model_output, timestep, sample, **options)
        finally:
            self.num_inference_steps = count


class DPMSolverMultistep(DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM-Solver++ (arXiv 2211.01095), deterministic."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device | None = None) -> None:
        of_sigmas = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
        if any(self.config[option] for option in of_sigmas):  # timesteps follow from the noise levels
            super().set_timesteps(num_inference_steps, device)
            return
        listed = inference_timesteps(num_inference_steps, self.config, points=num_inference_steps + 1)
        super().set_timesteps(device=device, timesteps=listed.tolist())


class FlowEuler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler steps whose `set_timesteps` needs no `mu` and `sigmas` from the family's pipeline."""

    shift_of_steps: Shift | None = None
    linear_sigmas = False

    def set_timesteps(self, num_inference_steps: int, device: torch.device | None = None) -> None:
        mu = None if self.shift_of_steps is None else self.shift_of_steps(num_inference_steps)
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps) if self.linear_sigmas else None
        super().set_timesteps(num_inference_steps, device, sigmas, mu)

    def stretch_shift_to_terminal(self, sigmas: Any) -> Any:
        return sigmas if len(sigmas) == 1 else super().stretch_shift_to_terminal(sigmas)  # a single step has no end
