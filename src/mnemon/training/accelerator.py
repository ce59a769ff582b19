"""accelerate, set up for one run: precision, gradient accumulation, TensorBoard."""

import importlib.util
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from mnemon.errors import MnemonError
from mnemon.training.settings import TrainingSettings


def make_accelerator(device: torch.device, settings: TrainingSettings, folder: Path | None) -> Accelerator:
    """An accelerator for one run on `device`; whatever is trained is put there by the caller.

    Raises:
        MnemonError: fp16 without a GPU, or TensorBoard without its package or a folder.
    """
    if settings.mixed_precision == "fp16" and device.type == "cpu":
        raise MnemonError("Mixed precision fp16 needs a GPU: use bf16, or none.")
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MnemonError("TensorBoard is not installed: pip install 'mnemon[track]', or switch 'tensorboard' off.")
    if settings.tensorboard and folder is None:
        raise MnemonError("TensorBoard needs a folder for the run: give one, or switch 'tensorboard' off.")
    # accelerate keeps one state for the whole process and refuses other settings; each run here brings its own.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        cpu=device.type == "cpu",
        device_placement=False,
        log_with="tensorboard" if settings.tensorboard else None,
        project_dir=folder if settings.tensorboard else None,
    )
