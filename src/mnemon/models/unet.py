"""What the U-Net families share: an autoencoder, a U-Net with cross-attention to text, CLIP text encoders."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.conditioning import Conditioning
from mnemon.models.noise_schedule import NoiseSchedule, noise_schedule
from mnemon.models.pipeline import PipelineBase
from mnemon.models.regional import listening_apart


class UNetBase(PipelineBase):
    """A base whose denoiser is a U-Net. A family says which pipeline, its encoders, and how prompts are heard."""

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        _refuse_unlike(self.denoiser, self.vae, name)
        if self.vae.config.force_upcast and self.dtype == torch.float16:
            self.vae.float()  # this autoencoder overflows in fp16
        self.resolution = self.latent_shape()[1] * pipeline.vae_scale_factor

    @abstractmethod
    def _encode(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Conditioning:
        """Encode prompts; `layers` says for each whose vectors layer-wise tokens take."""

    def _heard(self, condition: Conditioning) -> dict[str, Any]:
        """What the U-Net is given beside the hidden states."""
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

        Words beyond the encoder's length are ignored with a warning; a concept beyond it is an error.
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
        """Each prompt once for every layer: hidden (batch, layers, length, width); the pooled vector is their mean."""
        count = len(self.cross_attention_layers())
        copies = [prompt for prompt in prompts for _ in range(count)]
        condition = self._encode(copies, [layer for _ in prompts for layer in range(count)])
        pooled = condition.pooled_prompt_embeds
        return Conditioning(
            condition.prompt_embeds.unflatten(0, (len(prompts), count)),
            None if pooled is None else pooled.unflatten(0, (len(prompts), count)).mean(1),
        )

    def token_features(self, prompts: Sequence[str]) -> list[Tensor]:
        conditions = [
            self.encode_prompts([prompt]).prompt_embeds[0] for prompt in prompts
        ]  # each ([layers,] length, width)
        counts = [self.encoders[0].words(prompt) for prompt in prompts]
        return [hidden[..., 1 : 1 + words, :] for hidden, words in zip(conditions, counts, strict=True)]

    def _scaled(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor

    def _images(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        """The U-Net's answer in the dtype of `noisy`, which is cast to the U-Net's on the way."""
        hidden = condition.prompt_embeds.to(self.dtype)
        told = self._heard(condition)
        with self._apart(condition):
            first = hidden if hidden.ndim == 3 else hidden[:, 0]
            answer = self.denoiser(noisy.to(self.dtype), timesteps, encoder_hidden_states=first, **told)
        return answer.sample.to(noisy.dtype)

    def _apart(self, condition: Conditioning) -> AbstractContextManager[None]:
        """Within the block each cross-attention layer hears its own: for layer-wise tokens, and in regions."""
        inside, places = self._inside or ([], None)
        texts = [self._by_layer(one.prompt_embeds.to(self.dtype)) for one in [condition, *inside]]
        layers = [self.denoiser.get_submodule(layer) for layer in self.cross_attention_layers()]
        if places is not None:
            return listening_apart(layers, [torch.stack(told, dim=1) for told in zip(*texts, strict=True)], places)
        return _told_apart(layers, texts[0]) if condition.prompt_embeds.ndim == 4 else nullcontext()

    def _by_layer(self, hidden: Tensor) -> Sequence[Tensor]:
        """For each cross-attention layer (batch, length, width)."""
        return hidden.unbind(1) if hidden.ndim == 4 else [hidden] * len(self.cross_attention_layers())

    def latent_shape(self) -> tuple[int, int, int]:
        unet: Any = self.denoiser
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return unet.config.in_channels, height, width


@contextmanager
def _told_apart(layers: Sequence[nn.Module], texts: Sequence[Tensor]) -> Iterator[None]:
    """Within the block each cross-attention layer hears its own text (batch, length, width)."""

    def telling(own: Tensor) -> Any:
        return lambda module, args, options: (args, {**options, "encoder_hidden_states": own})

    handles = [
        layer.register_forward_pre_hook(telling(own), with_kwargs=True)
        for layer, own in zip(layers, texts, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse_unlike(unet: Any, vae: Any, name: str) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        raise MnemonError(
            f"The U-Net of '{name}' takes {unet.config.in_channels} channels where its autoencoder gives "
            f"{vae.config.latent_channels}: it edits images. Choose a text-to-image checkpoint."
        )
