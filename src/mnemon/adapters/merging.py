"""Deltas merged into the weights: a step costs the same as of the bare model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mnemon.adapters.checks import check_fit
from mnemon.adapters.delta import Delta
from mnemon.errors import MnemonError


class Merged:
    """Layers with deltas merged; a context manager that unmerges on leaving.

    Merges on top of one another have to be undone in reverse order, as nested `with` blocks do.
    """

    def __init__(self, originals: list[tuple[nn.Module, Tensor]]) -> None:
        self._originals = originals

    def unmerge(self) -> None:
        """Put the original weight tensors back, bit for bit. A second call does nothing."""
        for layer, weight in self._originals:
            _set_weight(layer, weight)
        self._originals = []

    def __enter__(self) -> "Merged":
        return self

    def __exit__(self, *_: object) -> None:
        self.unmerge()


def merge(target_modules: Mapping[str, nn.Module], deltas: Mapping[str, Delta]) -> Merged:
    """Replace each weight W0 by W0 + Δ, added in fp32 and rounded once to the weight's dtype.

    Target modules are linear layers or convolutions, whose kernels lie row by row in Δ (d_out, d_in · height · width).

    The original tensors are kept, so unmerging is exact.

    Raises:
        MnemonError: a target module is unknown, a shape does not fit, the weight is quantised, or W0 + Δ is not finite.
            Nothing is merged then.
    """
    merged: dict[str, Tensor] = {}
    for target, delta in deltas.items():  # each is looked at once: it may be summed, or read, only now
        check_fit(target_modules, {target: delta})
        merged[target] = _merged_weight(target, target_modules[target], delta)
    originals = [(target_modules[target], _weight(target_modules[target])) for target in merged]
    for target, weight in merged.items():
        _set_weight(target_modules[target], weight)
    return Merged(originals)


@torch.no_grad()
def _merged_weight(target: str, layer: nn.Module, delta: Delta) -> Tensor:
    weight = _weight(layer)
    if not weight.is_floating_point():
        raise MnemonError(f"The weight of '{target}' is quantised: attach the changes instead of merging them.")
    changed = (weight.float() + delta.matrix().to(weight.device).view_as(weight)).to(weight.dtype)
    if not changed.isfinite().all():
        raise MnemonError(
            f"Merging into '{target}' gives values that are not finite in {weight.dtype}: "
            "the change is damaged or its training diverged. Remove the concept or learn it again at a lower rate."
        )
    return changed


def _weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight").data


def _set_weight(layer: nn.Module, weight: Tensor) -> None:
    layer.get_parameter("weight").data = weight
