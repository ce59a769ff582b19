"""Regional prompts in cross-attention (Mix-of-Show, arXiv 2305.18292, section 4.3), and prompts by layer.

    h = sum_k w_k (.) softmax(Q(z) K(c_k)^T / sqrt d) V(c_k)        sum_k w_k = 1 at every pixel

c_0 is the prompt of the whole image, c_1 and on those of the regions; w_k are their masks. With masks of 0 and 1 a
region's queries attend to its own prompt only, and all others to the image's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mnemon.models.conditioning import Conditioning


@dataclass(frozen=True)
class RegionalPrompts:
    """The prompts of an image's parts.

    Attributes:
        regions: for each region its conditioning, with as many rows as the image's, all of one length.
        masks: (rows, 1 + regions, height, width) weights in 0..1 that sum to one: first that of the image's prompt.
        adapted: paths of the target modules with per-sample adapters, which count rows · (1 + regions) samples, the
            image's and the regions' of each row in turn.
    """

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

    with ExitStack() as stack:
        for layer, embeds in zip(layers, prompt_embeds, strict=True):
            stack.callback(layer.register_forward_pre_hook(replacing(embeds), with_kwargs=True).remove)
        yield


@contextmanager
def per_prompt(layers: Iterable[nn.Module], weights: Tensor) -> Iterator[None]:
    """Within the block layers see the rows of a batch once for each of k prompts, (rows · k, tokens, width), and their
    output is the weighted sum over the prompts.

    Args:
        layers: their first argument is (rows, tokens, width).
        weights: (rows, k, tokens); or masks (rows, k, height, width) at any resolution, where tokens are pixels.
    """
    count = weights.shape[1]

    def expand(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].repeat_interleave(count, 0), *inputs[1:])

    def combine(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        parts = output.unflatten(0, (-1, count))  # (rows, k, tokens, width)
        of_tokens = weights if weights.ndim == 3 else resized(weights, parts.shape[2]).flatten(2)
        return (parts * of_tokens[..., None].to(parts)).sum(1)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(expand).remove)
            stack.callback(layer.register_forward_hook(combine).remove)
        yield
