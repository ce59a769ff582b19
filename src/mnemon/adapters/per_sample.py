"""Deltas at work on some rows of a batch only: several concepts in one forward pass, each image under its own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mnemon.adapters.attach import Attached, Hook
from mnemon.adapters.checks import check_fit
from mnemon.adapters.delta import Delta

NOWHERE = -1


class Routed(Attached):
    """Several sets of changes attached to one model; `route` says which set each row of the next batch passes.

    Within a row an adapted layer computes W0 x + Δ_k x for the row's own set k; what a row gives does not depend on the
    other rows. The cost is that of one change for every row, however many sets there are.
    """

    def __init__(self, target_modules: Mapping[str, nn.Linear], sets: Sequence[Mapping[str, Delta]]) -> None:
        for deltas in sets:
            check_fit(target_modules, deltas)
        self._rows: list[Tensor] = [torch.empty(0, dtype=torch.long)] * len(sets)
        handles = []
        for target in {target: None for deltas in sets for target in deltas}:
            here = {index: deltas[target] for index, deltas in enumerate(sets) if target in deltas}
            for delta in here.values():
                delta.to(target_modules[target].weight.device)
            handles.append(target_modules[target].register_forward_hook(self._adding(here)))
        super().__init__(handles)

    def route(self, rows: Sequence[int] | Tensor) -> None:
        """Number of the set that each row passes, in order; NOWHERE for rows that pass none."""
        numbers = torch.as_tensor(rows)
        self._rows = [torch.nonzero(numbers == index).flatten() for index in range(len(self._rows))]

    def _adding(self, here: Mapping[int, Delta]) -> Hook:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            rows = {index: self._rows[index].to(output.device) for index in here if len(self._rows[index])}
            if not rows:
                return output
            changes = torch.cat([here[index](inputs[0][own]) for index, own in rows.items()])
            return output.index_add(0, torch.cat(list(rows.values())), changes.to(output.dtype))

        return hook
