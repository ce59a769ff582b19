"""Counting the bytes that a computation holds, without computing it.

On torch's meta device every operation runs its shapes only. The mode here sees each result, adds the bytes of its
storage to what is held, and takes them off when the last tensor on it is gone, as an allocator would; so the peak of
a training step is followed through the model's own forward pass and autograd's own backward pass, recomputation
for gradient checkpointing included. Nothing is fitted. What is not seen: workspaces of kernels, the allocator's
rounding and fragments, the device's own context.

Attention counts as the kernels of a GPU do it, which never hold the matrix of weights (Dao et al., arXiv 2205.14135).
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


class Held(TorchDispatchMode):
    """Within the block: bytes held now, and the most that were at once. Only tensors made inside count.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Do not count these, which were there before."""
        for tensor in tensors:
            self._known.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        result = _without_numbers(func, args) if _on_meta(args) else None
        result = func(*args, **options) if result is None else result
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size).atexit = False

    def _gone(self, size: int) -> None:
        self.now -= size


@contextmanager
def gpu_attention() -> Iterator[None]:
    """Within the block attention on the meta device holds what a GPU's kernels hold: inputs, output, a sum a row.

    The function itself is replaced, not overridden by a mode: autograd takes modes away while it computes checkpointed
    blocks again.
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
    """As `scaled_dot_product_attention`; on the meta device by the kernel that takes masks."""
    if query.device.type != "meta":
        return plain_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (part.repeat_interleave(times, -3) for part in (key, value))
    if attn_mask is not None:
        bias = attn_mask if attn_mask.is_floating_point() else torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = bias.expand(*query.shape[:-1], key.shape[-2])
    wants = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, wants, dropout_p, is_causal, scale=scale
    )[0]


def _on_meta(args: Any) -> bool:
    return any(isinstance(one, Tensor) and one.device.type == "meta" for one in tree_leaves(args))


def _without_numbers(func: Any, args: Any) -> Any:
    """What cannot be told from shapes: questions are answered with no, numbers are 1, and masks choose all places."""
    if func is aten._local_scalar_dense.default:
        return False if args[0].dtype == torch.bool else 1
    if func is aten.index.Tensor and len(args[1]) == 1 and args[1][0] is not None and args[1][0].dtype == torch.bool:
        return args[0].flatten(0, args[1][0].ndim - 1).clone()
    return None
