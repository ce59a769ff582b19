"""Several texts in one image for transformers in which text and image attend together, each text in its own place.

The texts follow one another in the text stream. s_ki says how much of token i belongs to text k: of a text's token 0 or
1, of the image's the weight of text k at its place, which sum to one over k. To the logits of the attention is added

    B_ij = 0                          between tokens of the image
    B_ij = log sum_k s_ki s_kj        otherwise

so with weights of 0 and 1 a place sees its own text only, and a text itself and its place only; a token that belongs to
a text by the weight w is counted w times. With one text everywhere nothing is added. Where changes of the weights are
routed, every token passes those of its text:

    sum_k s_ki (W + Delta_k) x_i
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from mnemon.errors import MnemonError


def text_shares(texts: int, length: int, heard: Tensor) -> Tensor:
    """s of text tokens, (rows, texts, texts · length), all texts of one length; `heard` (rows, texts · length) is false
    where a text is only filled up: such tokens belong to none."""
    own = one_hot(torch.arange(texts, device=heard.device).repeat_interleave(length), texts)
    return own.T * heard[:, None].float()


def attention_bias(share: Tensor, image: slice) -> Tensor:
    """B (rows, 1, tokens, tokens) of s (rows, texts, tokens), whose tokens in `image` are the image's. A token that
    belongs to no text is seen by itself alone."""
    bias = (share.transpose(1, 2) @ share).log()
    bias[:, image, image] = 0
    bias.diagonal(dim1=1, dim2=2).zero_()
    return bias[:, None]


@contextmanager
def attending(layers: Iterable[nn.Module], bias: Tensor) -> Iterator[None]:
    """Within the block the attention of each layer has `bias` for its mask, instead of any other.

    The processors of some families take no mask, so it is handed to the function that they all end in.

    Raises:
        MnemonError (when a layer is asked): its attention is not computed by that function.
    """
    with ExitStack() as stack:
        for layer in layers:
            telling = _Telling(bias)
            stack.callback(layer.register_forward_pre_hook(telling.begin).remove)
            stack.callback(layer.register_forward_hook(telling.end, always_call=True).remove)
        yield


class _Telling(TorchFunctionMode):
    """Between `begin` and `end` attention is computed with a bias."""

    def __init__(self, bias: Tensor) -> None:
        self.bias, self.told = bias, False

    def begin(self, *_: object) -> None:
        self.told = False
        self.__enter__()

    def end(self, module: nn.Module, inputs: object, output: object) -> None:
        self.__exit__(None, None, None)
        if output is not None and not self.told:
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
            args, options["attn_mask"], self.told = args[:3], self.bias.to(query.dtype), True
        return func(*args, **options)


@contextmanager
def changed_apart(target_modules: Iterable[nn.Module], share: Tensor) -> Iterator[None]:
    """Within the block routed changes see the rows of a batch once for each text, (rows · texts, tokens, width), and
    what they make of a token counts by its s (rows, texts, tokens).
    """
    texts = share.shape[1]

    def spread(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].repeat_interleave(texts, 0), *inputs[1:])

    def gathered(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        parts = output.unflatten(0, (-1, texts))  # (rows, texts, tokens, width)
        return (parts * share[..., None].to(parts)).sum(1)

    with ExitStack() as stack:
        for target in target_modules:
            if target._forward_hooks:  # routed: its rows are those of the texts
                stack.callback(target.register_forward_pre_hook(spread).remove)
                stack.callback(target.register_forward_hook(gathered).remove)
        yield
