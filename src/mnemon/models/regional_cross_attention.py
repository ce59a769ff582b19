"""Regional prompts in cross-attention (Mix-of-Show, arXiv 2305.18292, section 4.3), and prompts by layer.

    h = sum_k w_k (.) softmax(Q(z) K(c_k)^T / sqrt d) V(c_k)        sum_k w_k = 1 at every pixel

c_0 is the prompt of the whole image, c_1 and on those of the regions; w_k are their masks. With masks of 0 and 1 a
region's queries attend to its own prompt only, and all others to the image's.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mnemon.models.conditioning import Conditioning


@dataclass(frozen=True)
class RegionalPrompts:
    """The arguments of `Base.regional_prompts`."""

    regions: Sequence[Conditioning]
    masks: Tensor
    adapted: Collection[str]


def resized(masks: Tensor, count: int) -> Tensor:
    """Masks (batch, k, height, width) averaged onto a grid of `count` cells of the same proportions."""
    height, width = masks.shape[-2:]
    rows = round((count * height / width) ** 0.5)
    return adaptive_avg_pool2d(masks.float(), (rows, count // rows))


@contextmanager
def per_layer_conditioning(layers: Sequence[nn.Module], prompt_embeds: Sequence[Tensor]) -> Iterator[None]:
    """Within the block each cross-attention layer attends to prompt embeddings of its own (batch, length, width)."""

    def replacing(embeds: Tensor) -> Callable[..., Any]:
        return lambda module, args, options: (args, {**options, "encoder_hidden_states": embeds})

    handles = [
        layer.register_forward_pre_hook(replacing(embeds), with_kwargs=True)
        for layer, embeds in zip(layers, prompt_embeds, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def regional_cross_attention(
    layers: Sequence[nn.Module], prompt_embeds: Sequence[Tensor], masks: Tensor
) -> Iterator[None]:
    """Within the block cross-attention layers attend to several prompts, as rows of one batch.

    Args:
        layers: diffusers attention modules whose first argument is (batch, pixels, width).
        prompt_embeds: for each layer (batch, k, length, width).
        masks: (batch, k, height, width) weights w_k in 0..1 that sum to one over k, at any resolution.
    """
    count = masks.shape[1]

    def expand(module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Any]) -> Any:
        return (args[0].repeat_interleave(count, 0), *args[1:]), options

    def combine(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        parts = output.unflatten(0, (-1, count))  # (batch, k, pixels, width)
        weights = resized(masks, parts.shape[2]).to(parts)
        return (parts * weights.flatten(2)[..., None]).sum(1)

    handles = []
    for layer in layers:
        handles.append(layer.register_forward_pre_hook(expand, with_kwargs=True))
        handles.append(layer.register_forward_hook(combine))
    try:
        with per_layer_conditioning(layers, [embeds.flatten(0, 1) for embeds in prompt_embeds]):
            yield
    finally:
        for handle in handles:
            handle.remove()
