"""What the U-Net families share: an autoencoder, a U-Net with cross-attention to text, CLIP text encoders."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.conditioning import Conditioning
from mnemon.models.noise_schedule import NoiseSchedule, noise_schedule
from mnemon.models.pipeline import PipelineBase
from mnemon.models.regional_cross_attention import per_layer_conditioning, regional_cross_attention


class UNetBase(PipelineBase):
    """A base whose denoiser is a U-Net. A family adds its pipeline, its text encoders and their use."""

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        _refuse_unlike(self.denoiser, self.vae, name)
        if self.vae.config.force_upcast and self.dtype == torch.float16:
            self.vae.float()  # this autoencoder overflows in fp16
        self.resolution = self.latent_shape()[1] * pipeline.vae_scale_factor

    @abstractmethod
    def _encode(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Conditioning:
        """Encode prompts; `layers` are those whose embeddings layer-wise tokens take."""

    def _added_conditioning(self, conditioning: Conditioning) -> dict[str, Any]:
        """The U-Net's inputs beside the prompt embeddings."""
        return {}

    def _noise_schedule(self) -> NoiseSchedule:
        return noise_schedule(self._pipeline.scheduler)

    def target_modules(self) -> dict[str, nn.Linear]:
        return {
            path: module
            for path, module in self.denoiser.named_modules()
            if isinstance(module, nn.Linear) and path.endswith(("attn2.to_k", "attn2.to_v"))
        }

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """As in `Base`; each distinct prompt goes through the text encoders once.

        Tokens beyond the encoder's length are ignored with a warning; a concept beyond it is an error.
        """
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
        embeds = [self.encode_prompts([prompt]).prompt_embeds[0] for prompt in prompts]  # ([layers,] length, width)
        lengths = [self.encoders[0].num_tokens(prompt) for prompt in prompts]
        return [one[..., 1 : 1 + length, :] for one, length in zip(embeds, lengths, strict=True)]

    def _vae_encode(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor

    def _vae_decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's output in the dtype of `noisy`, which is cast to the U-Net's on the way."""
        embeds = conditioning.prompt_embeds.to(self.dtype)
        with self._conditioned_layers(conditioning):
            first = embeds if embeds.ndim == 3 else embeds[:, 0]
            added = self._added_conditioning(conditioning)
            output = self.denoiser(noisy.to(self.dtype), timesteps, encoder_hidden_states=first, **added)
        return output.sample.to(noisy.dtype)

    def _conditioned_layers(self, conditioning: Conditioning) -> AbstractContextManager[None]:
        """Within the block each cross-attention layer has prompt embeddings of its own, or those of all regions."""
        layers = [self.denoiser.get_submodule(path) for path in self.cross_attention_layers()]
        if self._regional is not None:
            prompts = [self._by_layer(one) for one in (conditioning, *self._regional.regions)]
            stacked = [torch.stack(of_layer, dim=1) for of_layer in zip(*prompts, strict=True)]
            return regional_cross_attention(layers, stacked, self._regional.masks)
        if conditioning.prompt_embeds.ndim == 4:
            return per_layer_conditioning(layers, self._by_layer(conditioning))
        return nullcontext()

    def _by_layer(self, conditioning: Conditioning) -> Sequence[Tensor]:
        """For each cross-attention layer (batch, length, width)."""
        embeds = conditioning.prompt_embeds.to(self.dtype)
        return embeds.unbind(1) if embeds.ndim == 4 else [embeds] * len(self.cross_attention_layers())

    def latent_shape(self) -> tuple[int, int, int]:
        unet: Any = self.denoiser
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return unet.config.in_channels, height, width


def _refuse_unlike(unet: Any, vae: Any, name: str) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        raise MnemonError(
            f"The U-Net of '{name}' takes {unet.config.in_channels} channels where its autoencoder gives "
            f"{vae.config.latent_channels}: it edits images. Choose a text-to-image checkpoint."
        )
