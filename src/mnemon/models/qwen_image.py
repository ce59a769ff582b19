"""Qwen-Image (Wu et al., arXiv 2508.02324)."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor, nn

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import LanguageEncoder, unpad
from mnemon.models.regional_cross_attention import RegionalPrompts
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, patchify, unpatchify


class QwenImage(TransformerBase):
    """The last hidden states of a language model, without those of the chat template's instruction."""

    family = "qwen-image"
    pipeline_class = QwenImagePipeline
    components = ("transformer", "vae", "text_encoder")
    autoencoder = "AutoencoderKLQwenImage"
    packing = 4

    def _encoders(self) -> list[PromptEncoder]:
        affixes = tuple(self._pipeline.prompt_template_encode.split("{}"))
        length = 512 + self._pipeline.prompt_template_encode_start_idx
        return [self._encoder("text_encoder", LanguageEncoder, length=length, affixes=affixes, pad_to_length=False)]

    @property
    def fixed_first_token(self) -> bool:
        return False  # the chat template's instruction is left out

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, mask = self.encoders[0](prompts)
        hidden, mask = unpad(states[-1], mask, skip=self._pipeline.prompt_template_encode_start_idx)
        return Conditioning(hidden, attention_mask=mask)

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        patches = patchify(noisy)
        shapes = [[(1, *patches.shape[2:])]] * len(noisy)
        mask = conditioning.attention_mask
        output = self._packed_flow(patches, timesteps, conditioning, encoder_hidden_states_mask=mask, img_shapes=shapes)
        return unpatchify(output)

    def _regional_flow(self, noisy: Tensor, timesteps: Tensor, regional: RegionalPrompts) -> Tensor:
        """As for all families; the rotary positions of each prompt begin anew."""
        prompts = regional.regions
        length = prompts[0].prompt_embeds.shape[1]

        def repeat(_: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            image, text = output  # rotations
            return image, text[:length].repeat(len(prompts), 1)

        denoiser: Any = self.denoiser
        handle = denoiser.pos_embed.register_forward_hook(repeat)
        try:
            return super()._regional_flow(noisy, timesteps, regional)
        finally:
            handle.remove()

    def classifier_free_guidance(self, uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance, rescaled: each patch keeps the norm of the conditional prediction."""
        original, guided = patchify(cond), patchify(super().classifier_free_guidance(uncond, cond, scale))
        return unpatchify(guided * (original.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True)))

    def _latent_channels(self) -> int:
        return self.vae.config.z_dim

    def _vae_encode(self, images: Tensor) -> Tensor:
        mean, std = self._latent_statistics()
        return (self.vae.encode(images[:, :, None]).latent_dist.mode()[:, :, 0] - mean) / std

    def _vae_decode(self, latents: Tensor) -> Tensor:
        mean, std = self._latent_statistics()
        return self.vae.decode((latents * std + mean)[:, :, None]).sample[:, :, 0]

    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' channels, (channels, 1, 1) each."""
        both = torch.tensor([self.vae.config.latents_mean, self.vae.config.latents_std])
        mean, std = both.to(self.device, self.vae.dtype)[..., None, None]
        return mean, std
