"""FLUX.2 (Black Forest Labs, 2025): dev, and klein."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from torch import Tensor
from torch.nn.functional import pad

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import LanguageEncoder, chat_affixes
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, patchify, position_ids, unpatchify


class Flux2(TransformerBase):
    """Hidden states of three layers of a language model, concatenated; padding is attended to.

    Latents are in patches and standardised, as in the pipeline. The single-stream blocks fuse keys and values
    with queries and the feed-forward in one layer, so only the double-stream blocks have layers for text.
    """

    family = "flux2"
    pipeline_class = Flux2Pipeline
    components = ("transformer", "vae", "text_encoder")
    autoencoder = "AutoencoderKLFlux2"
    packing = 4
    distilled = True
    text_layers: ClassVar[tuple[int, ...]] = (10, 20, 30)

    def _encoders(self) -> list[PromptEncoder]:
        processor, model = self._pipeline.tokenizer, self._pipeline.text_encoder
        tokenizer = getattr(processor, "tokenizer", processor)
        return [LanguageEncoder("text_encoder", tokenizer, model, 512, self._affixes(), pad_to_length=True)]

    def _affixes(self) -> tuple[str, str]:
        """What the chat template puts around a prompt."""
        return chat_affixes(self._pipeline.tokenizer, self._pipeline.system_message, add_generation_prompt=False)

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, _ = self.encoders[0](prompts)
        return Conditioning(torch.cat([states[layer] for layer in self.text_layers], dim=-1))

    def _mu(self, steps: int) -> float:
        """The schedule's shift as fitted by the model's authors (github.com/black-forest-labs/flux2, sampling.py):
        linear in the image's tokens for 10 and for 200 steps, linear in the steps between them."""
        tokens = self._image_tokens()
        many = 0.00016927 * tokens + 0.45666666
        if tokens > 4300:
            return many
        few = 8.73809524e-05 * tokens + 1.89833333
        return few + (many - few) * (steps - 10) / 190

    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = super().latent_shape()
        return channels * 4, height // 2, width // 2

    def _vae_encode(self, images: Tensor) -> Tensor:
        mean, std = self._latent_statistics()
        return (patchify(self.vae.encode(images).latent_dist.mode()) - mean) / std

    def _vae_decode(self, latents: Tensor) -> Tensor:
        mean, std = self._latent_statistics()
        return self.vae.decode(unpatchify(latents * std + mean)).sample

    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the patches' channels, (channels, 1, 1) each."""
        norm = self.vae.bn
        std = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean[:, None, None].to(self.vae.dtype), std[:, None, None].to(self.vae.dtype)

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        image_ids = pad(position_ids(noisy), (1, 1))  # image, row, column, text
        prompts = 1 + len(self._regional.regions) if self._regional else 1  # each begins at position 0
        text_ids = torch.arange(conditioning.prompt_embeds.shape[1] // prompts, device=noisy.device).repeat(prompts)
        return self._packed_flow(
            noisy,
            timesteps,
            conditioning,
            img_ids=image_ids.expand(len(noisy), -1, -1),
            txt_ids=pad(text_ids[:, None], (3, 0)).expand(len(noisy), -1, -1),
        )


class Flux2Klein(Flux2):
    """FLUX.2 klein: a smaller language model. Its base checkpoints are guided by the negative prompt, its distilled
    ones by nothing."""

    family = "flux2-klein"
    pipeline_class = Flux2KleinPipeline
    text_layers = (9, 18, 27)

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        self.distilled = bool(pipeline.config.is_distilled)

    def pipeline(self) -> Any:
        return type(self._pipeline)(**self._pipeline.components, is_distilled=self.distilled)

    def _affixes(self) -> tuple[str, str]:
        return chat_affixes(self._pipeline.tokenizer, add_generation_prompt=True, enable_thinking=False)
