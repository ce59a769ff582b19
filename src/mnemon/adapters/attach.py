"""Deltas attached beside the weights: an adapted layer computes W0 x + Δ x; W0 stays as it is."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mnemon.adapters.checks import check_fit
from mnemon.adapters.delta import Delta

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


class Attached:
    """Deltas attached to layers; a context manager that removes them on leaving."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Remove the deltas; no hook is left. A second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def attach(target_modules: Mapping[str, nn.Linear], deltas: Mapping[str, Delta]) -> Attached:
    """Add `deltas` to the outputs of their target modules, until removed. Works on quantised layers too.

    The deltas are moved to their layers' device. Several may be attached to one target module: they add up.

    Raises:
        MnemonError: a target module is unknown or a shape does not fit; nothing is attached then.
    """
    check_fit(target_modules, deltas)
    handles = []
    for target, delta in deltas.items():
        layer = target_modules[target]
        delta.to(layer.weight.device)
        handles.append(layer.register_forward_hook(_adding(delta)))
    return Attached(handles)


def _adding(delta: Delta) -> Hook:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + delta(inputs[0])

    return hook
