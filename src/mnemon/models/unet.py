"""What the U-Net families share: an autoencoder, a U-Net with cross-attention to text, CLIP text encoders."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from mnemon.models.base import Base
from mnemon.models.conditioning import Conditioning
from mnemon.models.configs import check_unet
from mnemon.models.noise_schedule import NoiseSchedule, noise_schedule
from mnemon.models.regional_cross_attention import per_layer_conditioning, per_prompt
from mnemon.models.tokens import PromptEncoder

BATCH = 32
"""Prompts encoded at once."""


class UNetBase(Base):
    """A base whose denoiser is a U-Net. A family adds its pipeline, its text encoders and their use."""

    target_pattern = r".*attn2\.to_[kv]"

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        check_unet(pipeline.unet, name)
        if self.vae.config.force_upcast and self.dtype == torch.float16:
            self.vae.float()  # this autoencoder overflows in fp16
        self.resolution = self.latent_shape()[1] * pipeline.vae_scale_factor

    @abstractmethod
    def _encode(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Conditioning:
        """Encode prompts; `layers` are those whose embeddings layer-wise tokens take."""

    def _added_conditioning(self, conditioning: Conditioning) -> dict[str, Any]:
        """The U-Net's inputs beside the prompt embeddings."""
        return {}

    def _encoders(self) -> list[PromptEncoder]:
        return [self._encoder(part) for part in self.components if part.startswith("text_encoder")]

    def _noise_schedule(self) -> NoiseSchedule:
        return noise_schedule(self._pipeline.scheduler, self.name)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        distinct = list(dict.fromkeys(prompts))
        layerwise = [prompt for prompt in distinct if any(encoder.is_layerwise(prompt) for encoder in self.encoders)]
        plain = [prompt for prompt in distinct if prompt not in layerwise]
        parts = [self._encode(plain)] if plain else []
        condition = Conditioning.cat(parts + ([self._encode_layerwise(layerwise)] if layerwise else []))
        order = plain + layerwise
        if order == list(prompts):
            return condition
        return condition[torch.tensor([order.index(prompt) for prompt in prompts], device=self.device)]

    def _encode_layerwise(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt once for every layer, (batch, layers, length, width); the pooled embedding is their mean."""
        count = len(self.cross_attention_layers())
        copies = [prompt for prompt in prompts for _ in range(count)]
        condition = self._encode(copies, [layer for _ in prompts for layer in range(count)])
        pooled = condition.pooled_prompt_embeds
        return Conditioning(
            condition.prompt_embeds.unflatten(0, (len(prompts), count)),
            None if pooled is None else pooled.unflatten(0, (len(prompts), count)).mean(1),
        )

    def token_features(self, prompts: Sequence[str]) -> list[Tensor]:
        layerwise = any(encoder.is_layerwise(prompt) for encoder in self.encoders for prompt in prompts)
        size = 1 if layerwise else BATCH  # beside a layer-wise prompt all others would be layer-wise too
        batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        embeds = [row for batch in batches for row in self.encode_prompts(batch).prompt_embeds]
        lengths = [self.encoders[0].num_tokens(prompt) for prompt in prompts]
        return [one[..., 1 : 1 + length, :] for one, length in zip(embeds, lengths, strict=True)]

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        embeds = conditioning.prompt_embeds.to(self.dtype)
        with self._conditioned_layers(conditioning):
            first = embeds if embeds.ndim == 3 else embeds[:, 0]
            added = self._added_conditioning(conditioning)
            output = self.denoiser(noisy.to(self.dtype), timesteps, encoder_hidden_states=first, **added)
        return output.sample.to(noisy.dtype)

    @contextmanager
    def _conditioned_layers(self, conditioning: Conditioning) -> Iterator[None]:
        """Within the block each cross-attention layer has prompt embeddings of its own, or those of all regions."""
        if self._regional is None and conditioning.prompt_embeds.ndim == 3:
            yield
            return
        layers = [self.denoiser.get_submodule(path) for path in self.cross_attention_layers()]
        with ExitStack() as stack:
            if self._regional is not None:
                prompts = [self._by_layer(one) for one in (conditioning, *self._regional.regions)]
                embeds = [torch.stack(of_layer, dim=1).flatten(0, 1) for of_layer in zip(*prompts, strict=True)]
                stack.enter_context(per_prompt(layers, self._regional.masks))
                stack.enter_context(per_layer_conditioning(layers, embeds))
            else:
                stack.enter_context(per_layer_conditioning(layers, self._by_layer(conditioning)))
            yield

    def _by_layer(self, conditioning: Conditioning) -> Sequence[Tensor]:
        """For each cross-attention layer (batch, length, width)."""
        embeds = conditioning.prompt_embeds.to(self.dtype)
        return embeds.unbind(1) if embeds.ndim == 4 else [embeds] * len(self.cross_attention_layers())

    def latent_shape(self) -> tuple[int, int, int]:
        unet: Any = self.denoiser
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return unet.config.in_channels, height, width
