"""Deltas to and from flat dictionaries of tensors, as safetensors files hold them."""

from collections.abc import Mapping

from torch import Tensor

from mnemon.adapters.delta import Delta
from mnemon.adapters.dense import Dense
from mnemon.adapters.low_rank import LowRank
from mnemon.adapters.masked_low_rank import MaskedLowRank
from mnemon.adapters.sparse import Sparse
from mnemon.errors import MnemonError

KINDS: dict[str, type[Delta]] = {
    "low_rank": LowRank,
    "masked_low_rank": MaskedLowRank,
    "sparse": Sparse,
    "dense": Dense,
}


def save_deltas(deltas: Mapping[str, Delta]) -> dict[str, Tensor]:
    """Flatten deltas to `<target>.<kind>.<tensor>` -> tensor."""
    return {
        f"{target}.{delta.kind}.{name}": tensor
        for target, delta in deltas.items()
        for name, tensor in delta.state().items()
    }


def load_deltas(tensors: Mapping[str, Tensor]) -> dict[str, Delta]:
    """The deltas that `save_deltas` flattened, by target module.

    Raises:
        MnemonError: a tensor is missing, unknown, of the wrong shape or type, or not finite; it is named.
    """
    states: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        target, kind, name = split_key(key)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise MnemonError(f"The tensor '{key}' holds values that are not finite.")
        states.setdefault((target, kind), {})[name] = tensor
    deltas: dict[str, Delta] = {}
    for (target, kind), state in states.items():
        if target in deltas:
            raise MnemonError(
                f"The layer '{target}' has two changes, '{deltas[target].kind}' and '{kind}'; one is expected."
            )
        deltas[target] = _delta(target, kind, state)
    return deltas


def split_key(key: str) -> tuple[str, str, str]:
    """Target module, kind and name of a stored tensor.

    Raises:
        MnemonError: it is none of a delta.
    """
    parts = key.rsplit(".", 2)
    if len(parts) != 3 or parts[1] not in KINDS:
        raise MnemonError(f"The tensor '{key}' is not '<layer>.<kind>.<name>' with a kind of {', '.join(KINDS)}.")
    return parts[0], parts[1], parts[2]


def _delta(target: str, kind: str, state: dict[str, Tensor]) -> Delta:
    """Build one delta, and hold what it would save now against what was given."""
    try:
        delta = KINDS[kind].from_state(state)
        rebuilt = delta.state()
    except KeyError as error:
        raise MnemonError(f"The tensor '{target}.{kind}.{error.args[0]}' is missing.") from error
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = ", ".join(f"'{target}.{kind}.{name}' {tuple(tensor.shape)}" for name, tensor in state.items())
        raise MnemonError(f"These tensors do not fit together: {shapes} ({error}).") from error
    for name, tensor in state.items():
        if name not in rebuilt:
            raise MnemonError(f"The tensor '{target}.{kind}.{name}' is unknown to the kind '{kind}'.")
        if tensor.shape != rebuilt[name].shape or tensor.dtype != rebuilt[name].dtype:
            raise MnemonError(
                f"The tensor '{target}.{kind}.{name}' has shape {tuple(tensor.shape)} and {tensor.dtype}, not "
                f"{tuple(rebuilt[name].shape)} and {rebuilt[name].dtype}."
            )
    return delta
