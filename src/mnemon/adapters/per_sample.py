"""Per-sample adapters: several sets of deltas in one forward pass, each row of the batch under its own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mnemon.adapters.attach import Attached, Hook
from mnemon.adapters.checks import check_fit
from mnemon.adapters.delta import Delta

NO_ADAPTER = -1


class PerSampleAdapters(Attached):
    """Several adapter sets attached to one model; `set_adapter_index` chooses the set of each row of the batch.

    For a row with set k an adapted layer computes W0 x + Δ_k x; the output of a row does not depend on the other rows.
    The cost is that of one delta per row, however many sets there are.
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

    def set_adapter_index(self, index: Sequence[int] | Tensor) -> None:
        """For each row of the next batches the number of its adapter set; NO_ADAPTER for the bare weights."""
        numbers = torch.as_tensor(index)
        self._rows = [torch.nonzero(numbers == number).flatten() for number in range(len(self._rows))]

    def _adding(self, here: Mapping[int, Delta]) -> Hook:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            rows = {index: self._rows[index].to(output.device) for index in here if len(self._rows[index])}
            if not rows:
                return output
            changes = torch.cat([here[index](inputs[0][own]) for index, own in rows.items()])
            return output.index_add(0, torch.cat(list(rows.values())), changes.to(output.dtype))

        return hook
