"""Several texts in one image, each heard in its own place (Mix-of-Show, arXiv 2305.18292, section 4.3).

    h = sum_k w_k (.) softmax(Q(z) K(c_k)^T / sqrt d) V(c_k)        sum_k w_k = 1 at every place

c_0 is the prompt of the whole image, c_1 and on those of the regions; w_k says how much of a place belongs to text k.
With weights of 0 and 1 a region's queries see its own text only, and everything else the prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d


@contextmanager
def listening_apart(layers: Sequence[nn.Module], texts: Sequence[Tensor], places: Tensor) -> Iterator[None]:
    """Within the block a cross-attention layer hears several texts, in rows of one batch.

    Args:
        layers: diffusers attention modules whose first argument is (batch, places, width).
        texts: for each layer (batch, k, length, width).
        places: (batch, k, height, width) weights w_k in 0..1 that sum to one over k, at any resolution.
    """
    count = places.shape[1]

    def spread(text: Tensor) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Any]) -> Any:
            states = args[0].repeat_interleave(count, 0)
            return (states, *args[1:]), {**options, "encoder_hidden_states": text.flatten(0, 1)}

        return hook

    def gathered(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        parts = output.unflatten(0, (-1, count))  # (batch, k, places, width)
        weights = on_grid(places, parts.shape[2]).to(parts)
        return (parts * weights.flatten(2)[..., None]).sum(1)

    handles = []
    for layer, text in zip(layers, texts, strict=True):
        handles.append(layer.register_forward_pre_hook(spread(text), with_kwargs=True))
        handles.append(layer.register_forward_hook(gathered))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_grid(places: Tensor, count: int) -> Tensor:
    """The weights (batch, k, height, width) on a grid of `count` places of the same proportions, by area."""
    height, width = places.shape[-2:]
    rows = round((count * height / width) ** 0.5)
    return adaptive_avg_pool2d(places.float(), (rows, count // rows))
