"""Checks that deltas fit a model."""

import math
from collections.abc import Mapping

from torch import nn

from mnemon.adapters.delta import Delta
from mnemon.errors import MnemonError


def matrix_shape(layer: nn.Module) -> tuple[int, int]:
    """(d_out, d_in) of a layer's weight as a matrix; a convolution's d_in counts the entries of one kernel."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    assert isinstance(layer, nn.Linear)
    return layer.out_features, layer.in_features


def check_fit(target_modules: Mapping[str, nn.Module], deltas: Mapping[str, Delta]) -> None:
    """Refuse deltas for layers that the model lacks or whose weights have another shape.

    Raises:
        MnemonError: naming the target module.
    """
    for target, delta in deltas.items():
        if target not in target_modules:
            raise MnemonError(f"The base has no layer '{target}': these changes were learned on another base.")
        expected = matrix_shape(target_modules[target])
        if delta.shape != expected:
            raise MnemonError(
                f"The change of '{target}' has shape {delta.shape}, its weight {expected}: "
                "these changes were learned on another base."
            )
