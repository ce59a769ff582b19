"""Weight-only quantization of frozen linear layers, so that a large base fits a small GPU.

int8: W ≈ s · q, with q in -127..127 and a scale s for each row. NF4: quantiles of a normal distribution with a scale
for each 64 weights (QLoRA, Dettmers et al., arXiv 2305.14314), by bitsandbytes. Weights are dequantized for each
product and again in the backward pass. Activations are not quantized: LLM.int8 (arXiv 2208.07339) rounds them too, and
bitsandbytes' layer keeps them for the backward pass, where gradient checkpointing does not reach them.

The target modules (`Base.target_modules()`) keep their weights: adapters are merged into them, and methods read them.
"""

from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mnemon.errors import MnemonError
from mnemon.models.base import Base

Quantization = Literal["8bit", "4bit"]
Weights = Literal["fp32", "bf16", "8bit", "4bit"]
PRECISIONS: dict[Weights, tuple[torch.dtype, Quantization | None]] = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "8bit": (torch.bfloat16, "8bit"),
    "4bit": (torch.bfloat16, "4bit"),
}
"""Precisions of a base: the dtype of computation, and the quantization of linear layers; most memory first."""
BLOCK = 64
"""Weights that share one scale in 4 bits."""


class QuantizedLinear(nn.Linear):
    """A linear layer with quantized weights: W0 x + bias, differentiable in x only.

    Attributes:
        weight: the quantized weights, int8 (d_out, d_in) or uint8 with two weights a byte.
        scales: (d_out,) in the layer's dtype, or fp32 for each block of 64.
    """

    scales: Tensor

    def __init__(self, layer: nn.Linear, how: Quantization) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make weights
        self.in_features, self.out_features, self.how = layer.in_features, layer.out_features, how
        weight, scales = (_int8 if how == "8bit" else _nf4)(layer.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        kind = inputs.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        product = _DequantizedLinear.apply(inputs, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weights (d_out, d_in) as they act."""
        if self.how == "8bit":
            return self.weight.to(dtype).mul_(self.scales.to(dtype)[:, None])
        shape = torch.Size((self.out_features, self.in_features))
        if self.weight.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        state = _bitsandbytes().QuantState(self.scales, shape, blocksize=BLOCK, quant_type="nf4", dtype=dtype)
        return _bitsandbytes().dequantize_4bit(self.weight.data, state)


class _DequantizedLinear(torch.autograd.Function):
    """W0 x, with W0 dequantized again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return linear(inputs, layer.dequantize(inputs.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.dequantize(gradient.dtype), None


def quantize(base: Base, how: Quantization, device: torch.device | str) -> Base:
    """The base on `device` with the linear layers of denoiser and text encoders quantized, except target modules.

    `base` shares its modules and is not to be used any more.

    Raises:
        MnemonError: 4 bits without bitsandbytes.
    """
    if how == "4bit" and torch.device(device).type != "meta":
        _bitsandbytes()
    quantize_linears(base.denoiser, how, device, keep=base.target_modules())
    for encoder in base.encoders:
        quantize_linears(encoder.model, how, device)
    return type(base)(base._pipeline.to(device), base.name, base.fingerprint)


def weights_of(base: Base) -> Weights | None:
    """How the weights of a base are kept; None in a way that has no name here, such as fp16."""
    for module in base.denoiser.modules():
        if isinstance(module, QuantizedLinear):
            return module.how
    return next((name for name, kept in PRECISIONS.items() if kept == (base.dtype, None)), None)


def quantize_linears(
    model: nn.Module, how: Quantization, device: torch.device | str, keep: Collection[str] = ()
) -> None:
    """Replace the linear layers of `model` one after another, so that the device never holds them whole."""
    excluded = _not_quantized(model)
    for path, layer in list(model.named_modules()):
        name = path.rpartition(".")[2]
        if type(layer) is nn.Linear and path not in keep and layer not in excluded and name not in excluded:
            parent = model.get_submodule(path.rpartition(".")[0])
            setattr(parent, name, QuantizedLinear(layer.to(device), how))


def _not_quantized(model: nn.Module) -> list[Any]:
    """What stays as it is: names of layers that their library keeps precise, and a head that shares the embeddings'
    weights."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [*(getattr(model, "_keep_in_fp32_modules", None) or ()), *([] if head is None else [head])]


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (d_out, d_in) and scales (d_out,). The scale is rounded to the layer's dtype first, so that it is exact."""
    whole = weight.float()
    scales = (whole.abs().amax(1) / 127).to(weight.dtype)
    steps = torch.where(scales > 0, scales, torch.ones_like(scales)).float()
    return (whole / steps[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def _nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    if weight.device.type == "meta":
        count = weight.numel()
        packed = torch.empty((count + 1) // 2, 1, dtype=torch.uint8, device="meta")
        return packed, torch.empty(-(-count // BLOCK), device="meta")
    packed, state = _bitsandbytes().quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4")
    return packed, state.absmax


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import functional
    except ImportError:
        raise MnemonError(
            "Weights in 4 bits need the extra 'quant': pip install 'mnemon[quant]'. 8 bits need nothing more."
        ) from None
    return functional
