"""Deltas added into the weights: the model costs what the bare model costs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mnemon.adapters.checks import check_fit
from mnemon.adapters.delta import Delta
from mnemon.errors import MnemonError


class Folded:
    """Layers with deltas folded in; a context manager that unfolds on leaving.

    Folds on top of one another have to be undone in reverse order, as nested `with` blocks do.
    """

    def __init__(self, originals: list[tuple[nn.Module, Tensor]]) -> None:
        self._originals = originals

    def unfold(self) -> None:
        """Put the original weight tensors back, bit for bit. A second call does nothing."""
        for layer, weight in self._originals:
            _set_weight(layer, weight)
        self._originals = []

    def __enter__(self) -> "Folded":
        return self

    def __exit__(self, *_: object) -> None:
        self.unfold()


def fold(sites: Mapping[str, nn.Module], deltas: Mapping[str, Delta]) -> Folded:
    """Replace each weight W0 by W0 + Δ, added in fp32 and rounded once to the weight's dtype.

    Sites are linear layers or convolutions, whose kernels lie row by row in Δ (d_out, d_in · height · width).

    The original tensors are kept aside, so unfolding is exact.

    Raises:
        MnemonError: a site is unknown, a shape does not fit, the weight is quantised, or W0 + Δ is not finite. Nothing
            is folded then.
    """
    check_fit(sites, deltas)
    folded = {site: _folded_weight(site, sites[site], delta) for site, delta in deltas.items()}
    originals = [(sites[site], _weight(sites[site])) for site in folded]
    for site, weight in folded.items():
        _set_weight(sites[site], weight)
    return Folded(originals)


@torch.no_grad()
def _folded_weight(site: str, layer: nn.Module, delta: Delta) -> Tensor:
    weight = _weight(layer)
    if not weight.is_floating_point():
        raise MnemonError(f"The weight of '{site}' is quantised: attach the changes instead of folding them in.")
    changed = (weight.float() + delta.matrix().to(weight.device).view_as(weight)).to(weight.dtype)
    if not changed.isfinite().all():
        raise MnemonError(
            f"Folding into '{site}' gives values that are not finite in {weight.dtype}: "
            "the change is damaged or its training diverged. Remove the concept or learn it again at a lower rate."
        )
    return changed


def _weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight").data


def _set_weight(layer: nn.Module, weight: Tensor) -> None:
    layer.get_parameter("weight").data = weight
