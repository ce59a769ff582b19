"""What the rehearsed steps hold in truth: on a GPU the same base with random weights, the same steps, torch's count."""

from collections.abc import Mapping

import torch

from mnemon.errors import MnemonError
from mnemon.planning import rehearsal
from mnemon.planning.plan import Levers, Plan


def measured(plan: Plan, levers: Levers) -> Mapping[str, int]:
    """Peak bytes allocated on the GPU while a first concept learns, and while an image is drawn of the bare base: an
    estimate's "learning" and "drawing" without the rows "earlier concepts", "all concepts" and "latents of photos".

    Nothing is loaded: the base is built from its configs, with random weights. Text encoders stay on the GPU.

    Raises:
        MnemonError: there is no GPU, or the base does not fit into its memory.
    """
    if not torch.cuda.is_available():
        raise MnemonError("Measuring needs a GPU, and torch finds none here: leave out --measure.")
    try:
        return _measured(plan, levers, torch.device("cuda"))
    except torch.cuda.OutOfMemoryError as error:
        raise MnemonError(f"It does not fit into this GPU's memory: {str(error).splitlines()[0]}") from error


def _measured(plan: Plan, levers: Levers, device: torch.device) -> dict[str, int]:
    base = plan.base(levers.weights, device)
    learner = rehearsal.begun(plan.method, base)
    moments = [torch.zeros_like(parameter) for parameter in learner.parameters() for _ in range(2)]  # what AdamW keeps
    torch.cuda.reset_peak_memory_stats(device)
    rehearsal.step(base, learner, plan.rows(levers), levers.checkpointing)
    rehearsal.encoding(base)
    learning = torch.cuda.max_memory_allocated(device)
    del learner, moments
    torch.cuda.reset_peak_memory_stats(device)
    for stage in (rehearsal.prompting, rehearsal.drawing, rehearsal.decoding):
        stage(base)
    return {"learning": learning, "drawing": torch.cuda.max_memory_allocated(device)}
