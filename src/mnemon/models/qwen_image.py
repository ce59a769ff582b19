"""Qwen-Image (Wu et al., arXiv 2508.02324)."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor, nn

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import LanguageEncoder, squeezed
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, as_latents, as_tokens, patched, unpatched


class QwenImage(TransformerBase):
    """The last hidden states of a language model, without those of the chat's instruction. The model takes tokens."""

    family = "qwen-image"
    pipeline_class = QwenImagePipeline
    components = ("transformer", "vae", "text_encoder")
    unused = {}
    text_sites = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj"
    packing = 4

    def _encoders(self) -> list[PromptEncoder]:
        pipeline = self._pipeline
        before, after = pipeline.prompt_template_encode.split("{}")
        length = 512 + pipeline.prompt_template_encode_start_idx
        encoder = pipeline.text_encoder
        return [LanguageEncoder("text_encoder", pipeline.tokenizer, encoder, length, (before, after), filled=False)]

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, mask = self.encoders[0](prompts)
        hidden, mask = squeezed(states[-1], mask, skip=self._pipeline.prompt_template_encode_start_idx)
        return Conditioning(hidden, attention_mask=mask)

    def _flow(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        patches = patched(noisy)
        height, width = patches.shape[2:]
        answer = self.denoiser(
            as_tokens(patches),
            encoder_hidden_states=condition.prompt_embeds,
            encoder_hidden_states_mask=condition.attention_mask,
            timestep=timesteps.to(noisy) / self.schedule.num_train_timesteps,
            img_shapes=[[(1, height, width)]] * len(noisy),
            guidance=self._told_guidance(condition),
            return_dict=False,
        )[0]
        return unpatched(as_latents(answer, height))

    def _flow_apart(self, noisy: Tensor, timesteps: Tensor, texts: Sequence[Conditioning], places: Tensor) -> Tensor:
        length = texts[0].prompt_embeds.shape[1]

        def beginning_anew(_: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            image, words = output  # rotations
            return image, words[:length].repeat(len(texts), 1)

        denoiser: Any = self.denoiser
        handle = denoiser.pos_embed.register_forward_hook(beginning_anew)
        try:
            return super()._flow_apart(noisy, timesteps, texts, places)
        finally:
            handle.remove()

    def classifier_free_guidance(self, uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance, rescaled: each patch keeps the norm of the conditional prediction."""
        original, guided = patched(cond), patched(super().classifier_free_guidance(uncond, cond, scale))
        return unpatched(guided * (original.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True)))

    def _latent_channels(self) -> int:
        return self.vae.config.z_dim

    def _scaled(self, images: Tensor) -> Tensor:
        mean, deviation = self._spread()
        return (self.vae.encode(images[:, :, None]).latent_dist.mode()[:, :, 0] - mean) / deviation

    def _images(self, latents: Tensor) -> Tensor:
        mean, deviation = self._spread()
        return self.vae.decode((latents * deviation + mean)[:, :, None]).sample[:, :, 0]

    def _spread(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' channels, (channels, 1, 1) each."""
        both = torch.tensor([self.vae.config.latents_mean, self.vae.config.latents_std])
        mean, deviation = both.to(self.device, self.vae.dtype)[..., None, None]
        return mean, deviation
