"""Gradient checkpointing under the hooks of the forward pass.

A block is computed again in the backward pass, when hooks that stood for the forward pass alone are gone: those that
give each layer a prompt of its own, for example. Computed without them, its gradients would be another function's.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Where torch keeps a module's hooks of the forward pass."""
ModuleHooks = dict[nn.Module, dict[str, Any]]


def checkpoint_layers(model: nn.Module, on: bool) -> None:
    """Gradient checkpointing of a text encoder's layers, which stay in evaluation mode otherwise."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # takes seconds

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            layer.gradient_checkpointing = layer.training = on  # its own flag: without it nothing is recomputed


def checkpoint_with_hooks(block: nn.Module, *inputs: Any) -> Any:
    """`block(*inputs)`, computed again in the backward pass under the hooks that its modules have now; a function for
    diffusers' `enable_gradient_checkpointing`."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _under(_hooks(block, lambda hooks: hooks.copy()))

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


def _hooks(block: nn.Module, taken: Callable[[Any], Any]) -> ModuleHooks:
    return {module: {name: taken(getattr(module, name)) for name in HOOKS} for module in block.modules()}


@contextmanager
def _under(hooks: ModuleHooks) -> Iterator[None]:
    """Within the block the modules have these hooks, and afterwards their own again."""
    own = _hooks(next(iter(hooks)), lambda current: current)
    try:
        _set(hooks)
        yield
    finally:
        _set(own)


def _set(hooks: ModuleHooks) -> None:
    for module, kinds in hooks.items():
        for name, value in kinds.items():
            setattr(module, name, value)
