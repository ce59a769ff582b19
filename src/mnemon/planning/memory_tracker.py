"""Counting the bytes that a computation holds, without computing it.

On torch's meta device every operation computes shapes only. `MemoryTracker` sees each result, adds the bytes of its
storage to the current total, and subtracts them when the last tensor on it is gone, as an allocator would. So the peak
of a training step is followed through the model's own forward pass and autograd's own backward pass, recomputation by
gradient checkpointing included. Not counted: kernels' workspaces, the allocator's rounding and fragments, the device's
own context.

Attention counts as GPU kernels do it, which never hold the matrix of attention weights (Dao et al., arXiv 2205.14135).
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
plain_attention = functional.scaled_dot_product_attention


class MemoryTracker(TorchDispatchMode):
    """A context manager that counts the tensors allocated inside it.

    Attributes:
        current: bytes held now.
        peak: the most bytes held at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def ignore(self, tensors: Sequence[Tensor]) -> None:
        """Do not count these, which are there already."""
        for tensor in tensors:
            self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is aten._to_copy.default and _on_meta(args):
            kwargs["device"] = torch.device("meta")  # what has no values cannot be copied to the CPU
        result = _without_values(func, args)
        result = func(*args, **kwargs) if result is None else result
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._subtract, size).atexit = False

    def _subtract(self, size: int) -> None:
        self.current -= size


@contextmanager
def gpu_attention() -> Iterator[None]:
    """Within the block attention on the meta device holds what GPU kernels hold: inputs, output, one sum per row.

    The function itself is replaced, not overridden by a mode: autograd disables modes while it recomputes checkpointed
    blocks.
    """
    functional.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain_attention


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention`; on the meta device by the memory-efficient kernel, which takes masks."""
    if query.device.type != "meta":
        return plain_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (part.repeat_interleave(repeats, -3) for part in (key, value))
    if attn_mask is not None:
        bias = attn_mask if attn_mask.is_floating_point() else torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = bias.expand(*query.shape[:-1], key.shape[-2])
    needs_grad = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, needs_grad, dropout_p, is_causal, scale=scale
    )[0]


def _on_meta(args: Any) -> bool:
    return any(isinstance(arg, Tensor) and arg.device.type == "meta" for arg in tree_leaves(args))


def _without_values(func: Any, args: Any) -> Any:
    """Results that need values, which meta tensors lack: conditions are False, numbers 1, masks select everything."""
    if func not in (aten._local_scalar_dense.default, aten.index.Tensor) or not _on_meta(args):
        return None
    if func is aten._local_scalar_dense.default:
        return False if args[0].dtype == torch.bool else 1
    if len(args[1]) == 1 and args[1][0] is not None and args[1][0].dtype == torch.bool:
        return args[0].flatten(0, args[1][0].ndim - 1).clone()
    return None
