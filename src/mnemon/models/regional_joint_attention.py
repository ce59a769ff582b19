"""Regional prompts in joint attention of text and image (MMDiT).

The prompts follow one another in the text stream. s_ki is the weight with which token i belongs to prompt k: 1 or 0 for
text, the mask of k for a token of the image; these sum to one. The attention's logits get the bias

    B_ij = 0                          between tokens of the image
    B_ij = log sum_k s_ki s_kj        otherwise

so with masks of 0 and 1 a token of the image attends to its own prompt only, and a prompt to itself and its region
only; a token that belongs to a prompt by the weight w counts w times. With one prompt everywhere the bias is zero.
Where adapters differ by prompt, every token passes those of its prompts:

    sum_k s_ki (W + Delta_k) x_i        (`per_prompt`)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from mnemon.errors import MnemonError


def text_membership(prompts: int, length: int, attention_mask: Tensor) -> Tensor:
    """s of text tokens, (rows, prompts, prompts · length), all prompts of one length; padding, where `attention_mask`
    (rows, prompts · length) is false, belongs to none."""
    own = one_hot(torch.arange(prompts, device=attention_mask.device).repeat_interleave(length), prompts)
    return own.T * attention_mask[:, None].float()


def attention_bias(membership: Tensor, image: slice) -> Tensor:
    """B (rows, 1, tokens, tokens) of s (rows, prompts, tokens), whose tokens in `image` are the image's. A token that
    belongs to no prompt attends to itself alone."""
    bias = (membership.transpose(1, 2) @ membership).log()
    bias[:, image, image] = 0
    bias.diagonal(dim1=1, dim2=2).zero_()
    return bias[:, None]


@contextmanager
def biased_attention(layers: Iterable[nn.Module], bias: Tensor) -> Iterator[None]:
    """Within the block each layer's attention has `bias` as its mask, in place of any other.

    The processors of some families take no mask, so it is passed to the function that they all end in.

    Raises:
        MnemonError (when a layer is called): its attention is not computed by that function.
    """
    with ExitStack() as stack:
        for layer in layers:
            mode = _BiasedAttention(bias)
            stack.callback(layer.register_forward_pre_hook(mode.begin).remove)
            stack.callback(layer.register_forward_hook(mode.end, always_call=True).remove)
        yield


class _BiasedAttention(TorchFunctionMode):
    """Between `begin` and `end` scaled_dot_product_attention has a bias."""

    def __init__(self, bias: Tensor) -> None:
        self.bias, self.applied = bias, False

    def begin(self, *_: object) -> None:
        self.applied = False
        self.__enter__()

    def end(self, module: nn.Module, inputs: object, output: object) -> None:
        self.__exit__(None, None, None)
        if output is not None and not self.applied:
            raise MnemonError(
                "Regions need an attention that takes a mask, and this one is set to a backend that does not: "
                'set the denoiser\'s back with set_attention_backend("native").'
            )

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is scaled_dot_product_attention:
            query = args[0] if args else options["query"]
            args, options["attn_mask"], self.applied = args[:3], self.bias.to(query.dtype), True
        return func(*args, **options)
