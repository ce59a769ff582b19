"""A GPU that is full, said in one sentence with what to do next."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mnemon.errors import MnemonError
from mnemon.models import Base
from mnemon.models.quantization import PRECISIONS, weights_of
from mnemon.training import TrainingSettings


@contextmanager
def gpu_errors(base: Base, training: TrainingSettings | None = None, batch_size: int = 1) -> Iterator[None]:
    """Within the block CUDA's out-of-memory error becomes a `MnemonError` that names the next lever.

    Args:
        training: of what is trained in the block.
        batch_size: images that are sampled at once, where nothing is trained.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        what = str(error).partition(". GPU")[0].splitlines()[0]
        lever = next_lever(base, training, batch_size)
        raise MnemonError(f"The GPU's memory does not suffice ({what}): {lever}.") from error


def next_lever(base: Base, training: TrainingSettings | None, batch_size: int = 1) -> str:
    """What to try next, the options that change nothing else first."""
    if training is not None and not training.gradient_checkpointing:
        return "recompute activations with --gradient-checkpointing"
    batch = None if training is None else training.batch_size
    if training is not None and batch and training.gradient_accumulation_steps < batch:
        return f"compute the batch in {batch} parts with --gradient-accumulation-steps {batch}"
    if training is None and batch_size > 1:
        return "sample one image at a time with --batch-size 1"
    names = list(PRECISIONS)
    weights = weights_of(base) or "bf16"
    if weights != names[-1]:
        return f"keep the weights smaller with --weights {names[names.index(weights) + 1]}"
    return "use a GPU with more memory (`mnemon plan` says how much is needed)"
