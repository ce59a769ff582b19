"""What the steps of a dry run hold on a real GPU: the same base with random weights, counted by torch."""

from collections.abc import Mapping

import torch

from mnemon.errors import MnemonError
from mnemon.planning import dry_run
from mnemon.planning.plan import MemoryOptions, Plan


def measure_on_gpu(plan: Plan, options: MemoryOptions) -> Mapping[str, int]:
    """Peak bytes allocated on the GPU while a first concept trains and while an image of the bare base is sampled: an
    estimate's `training` and `sampling` without the rows "earlier concepts", "all concepts" and "latents of photos".

    Nothing is loaded: the base is built from its configs, with random weights. Text encoders stay on the GPU.

    Raises:
        MnemonError: there is no GPU, or the base does not fit into its memory.
    """
    if not torch.cuda.is_available():
        raise MnemonError("Measuring needs a GPU, and torch finds none here: leave out --measure.")
    try:
        return _measure(plan, options, torch.device("cuda"))
    except torch.cuda.OutOfMemoryError as error:
        raise MnemonError(f"It does not fit into this GPU's memory: {str(error).splitlines()[0]}") from error


def _measure(plan: Plan, options: MemoryOptions, device: torch.device) -> dict[str, int]:
    base = plan.base(options.weights, device)
    learner = dry_run.new_learner(plan.method, base)
    moments = [torch.zeros_like(parameter) for parameter in learner.parameters() for _ in range(2)]  # AdamW's
    torch.cuda.reset_peak_memory_stats(device)
    dry_run.training_step(base, learner, plan.rows(options), options.gradient_checkpointing)
    dry_run.encode_image(base)
    training = torch.cuda.max_memory_allocated(device)
    del learner, moments
    torch.cuda.reset_peak_memory_stats(device)
    for stage in (dry_run.encode_prompt, dry_run.denoise, dry_run.decode_image):
        stage(base)
    return {"training": training, "sampling": torch.cuda.max_memory_allocated(device)}
