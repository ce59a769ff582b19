"""What a denoiser is conditioned on: encoded prompts, and the guidance scale of guidance-distilled models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, one row each.

    Attributes:
        prompt_embeds: (batch, length, width), or (batch, layers, length, width) with an encoding for each
            cross-attention layer.
        pooled_prompt_embeds: (batch, width), for families that take a pooled vector too.
        attention_mask: (batch, length), false at padding; None where every position is attended to.
        guidance: (batch,), the scale that a guidance-distilled denoiser takes as input (`Base.distilled`).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    guidance: Tensor | None = None

    def __getitem__(self, rows: slice | Tensor) -> "Conditioning":
        return self._map(lambda tensor: tensor[rows])

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def to(self, target: torch.device | torch.dtype) -> "Conditioning":
        """On another device, or in another floating dtype; masks keep theirs."""
        by_device = isinstance(target, torch.device)
        return self._map(lambda tensor: tensor.to(target) if by_device or tensor.is_floating_point() else tensor)

    def detach(self) -> "Conditioning":
        return self._map(Tensor.detach)

    def clone(self) -> "Conditioning":
        return self._map(Tensor.clone)

    def with_guidance(self, scale: float) -> "Conditioning":
        """The same with `scale` in every row of `guidance`, in fp32."""
        return replace(self, guidance=self.prompt_embeds.new_full((len(self),), scale, dtype=torch.float32))

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors().values())

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """The rows of all parts, padded to the longest; if some are layer-wise, the others are expanded to layers."""
        lengths = {part.prompt_embeds.shape[-2] for part in parts}
        masked = len(lengths) > 1 or any(part.attention_mask is not None for part in parts)
        padded = [part._padded(max(lengths)) for part in parts] if masked else parts
        embeds = [part.prompt_embeds for part in padded]
        layers = max((tensor.shape[1] for tensor in embeds if tensor.ndim == 4), default=0)
        if layers:
            embeds = [one if one.ndim == 4 else one[:, None].expand(-1, layers, -1, -1) for one in embeds]
        others = {
            name: torch.cat([getattr(part, name) for part in padded])
            for name in ("pooled_prompt_embeds", "attention_mask", "guidance")
            if all(getattr(part, name) is not None for part in padded)
        }
        return Conditioning(torch.cat(embeds), **others)

    def _padded(self, length: int) -> "Conditioning":
        embeds, mask = self.prompt_embeds, self.attention_mask
        missing = length - embeds.shape[-2]
        if mask is None:
            mask = torch.ones(len(self), embeds.shape[-2], dtype=torch.bool, device=embeds.device)
        padded = functional.pad(embeds, (0, 0, 0, missing))
        return replace(self, prompt_embeds=padded, attention_mask=functional.pad(mask, (0, missing)))

    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Conditioning":
        return replace(self, **{name: function(tensor) for name, tensor in self._tensors().items()})
