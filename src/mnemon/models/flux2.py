"""FLUX.2 (Black Forest Labs, 2025): dev, and klein."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from torch import Tensor

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import LanguageEncoder, chat_frame
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, as_latents, as_tokens, patched, positions, unpatched

LENGTH = 512


class Flux2(TransformerBase):
    """Three layers of a language model side by side, which takes tokens; the filled places of a prompt are heard too.

    Latents are in patches and standardised, as the pipeline draws them. The single-stream blocks fuse keys and values
    with queries and the feed-forward in one layer, so only the double-stream blocks have layers for text.
    """

    family = "flux2"
    pipeline_class = Flux2Pipeline
    components = ("transformer", "vae", "text_encoder")
    unused = {}
    text_sites = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj"
    packing = 4
    distilled = True
    heard_layers: ClassVar[tuple[int, ...]] = (10, 20, 30)

    def _encoders(self) -> list[PromptEncoder]:
        processor = self._pipeline.tokenizer
        frame = chat_frame(processor, self._pipeline.system_message, add_generation_prompt=False)
        tokenizer = getattr(processor, "tokenizer", processor)
        return [LanguageEncoder("text_encoder", tokenizer, self._pipeline.text_encoder, LENGTH, frame, filled=True)]

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, _ = self.encoders[0](prompts)
        return Conditioning(torch.cat([states[layer] for layer in self.heard_layers], dim=-1))

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

    def _scaled(self, images: Tensor) -> Tensor:
        mean, deviation = self._spread()
        return (patched(self.vae.encode(images).latent_dist.mode()) - mean) / deviation

    def _images(self, latents: Tensor) -> Tensor:
        mean, deviation = self._spread()
        return self.vae.decode(unpatched(latents * deviation + mean)).sample

    def _spread(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the patches' channels, (channels, 1, 1) each."""
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean[:, None, None].to(self.vae.dtype), deviation[:, None, None].to(self.vae.dtype)

    def _flow(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        height, width = noisy.shape[2:]
        places = torch.nn.functional.pad(positions(height, width, noisy.device), (1, 1))  # image, row, column, word
        texts = 1 + len(self._inside[0]) if self._inside else 1  # each begins at place 0
        words = torch.arange(condition.prompt_embeds.shape[1] // texts, device=noisy.device).repeat(texts)[:, None]
        answer = self.denoiser(
            as_tokens(noisy),
            encoder_hidden_states=condition.prompt_embeds,
            timestep=timesteps.to(noisy) / self.schedule.num_train_timesteps,
            img_ids=places.expand(len(noisy), -1, -1),
            txt_ids=torch.nn.functional.pad(words, (3, 0)).expand(len(noisy), -1, -1),
            guidance=self._told_guidance(condition),
            return_dict=False,
        )[0]
        return as_latents(answer, height)


class Flux2Klein(Flux2):
    """FLUX.2 klein: a smaller language model. Its base checkpoints are guided by the negative prompt, its distilled
    ones by nothing."""

    family = "flux2-klein"
    pipeline_class = Flux2KleinPipeline
    heard_layers = (9, 18, 27)

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        self.distilled = bool(pipeline.config.is_distilled)

    def pipeline(self) -> Any:
        return type(self._pipeline)(**self._pipeline.components, is_distilled=self.distilled)

    def _encoders(self) -> list[PromptEncoder]:
        tokenizer = self._pipeline.tokenizer
        frame = chat_frame(tokenizer, add_generation_prompt=True, enable_thinking=False)
        return [LanguageEncoder("text_encoder", tokenizer, self._pipeline.text_encoder, LENGTH, frame, filled=True)]
