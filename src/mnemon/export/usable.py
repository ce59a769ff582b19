"""Whether a base could be sampled at all with a concept from elsewhere in it. Asked before it is taken in: afterwards
it would stand in the way of every other concept."""

import torch
from torch import Tensor

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.models.layers import every_layer

LARGEST = 1e4
"""Norm of a change over that of the weight that it changes. Common LoRA files have less than 1, strong ones 10."""
PROMPT = "a photo of {}"
"""No shorter one is sampled for scores."""


def check_usable(base: Base, method: Method, learned: TrainedConcept) -> None:
    """Raises:
    MnemonError: a change overflows or is beyond all measure, or the token has more vectors than a prompt has room.
    """
    layers = every_layer(base)
    for target, delta in learned.deltas.items():
        _check_size(target, layers[target].get_parameter("weight"), delta)
    with base.using_tokens(method.tokens([learned])):
        try:
            base.check_prompt(PROMPT.format(method.prompt_name(learned.name, learned.class_noun)))
        except MnemonError as error:
            vectors = max(len(rows) for rows in learned.tokens.values())
            raise MnemonError(
                f"The token of '{learned.name}' has {vectors} vectors, which leaves no room in a prompt: {error}"
            ) from error


@torch.no_grad()
def _check_size(target: str, weight: Tensor, delta: Delta) -> None:
    if not weight.is_floating_point():
        return
    matrix = delta.matrix().to(weight.device)
    changed = (weight.float() + matrix.view_as(weight)).to(weight.dtype)
    times = float(torch.linalg.norm(matrix.double()) / torch.linalg.norm(weight.double()).clamp(min=1e-12))
    if not changed.isfinite().all() or times > LARGEST:
        raise MnemonError(
            f"The change of '{target}' is {times:.1g} times as large as the weight that it changes: no image can be "
            "sampled with that. The file is damaged, its training diverged, or its alpha is wrong."
        )
