"""Qwen-Image (Wu et al., arXiv 2508.02324)."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor, nn

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import LanguageEncoder, unpad
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, pack_latents, patchify, unpack_latents, unpatchify


class QwenImage(TransformerBase):
    """The last hidden states of a language model, without those of the chat template's instruction."""

    family = "qwen-image"
    pipeline_class = QwenImagePipeline
    components = ("transformer", "vae", "text_encoder")
    unused = {}
    target_pattern = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj"
    packing = 4

    def _encoders(self) -> list[PromptEncoder]:
        pipeline = self._pipeline
        before, after = pipeline.prompt_template_encode.split("{}")
        length = 512 + pipeline.prompt_template_encode_start_idx
        encoder = pipeline.text_encoder
        return [
            LanguageEncoder("text_encoder", pipeline.tokenizer, encoder, length, (before, after), pad_to_length=False)
        ]

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, mask = self.encoders[0](prompts)
        hidden, mask = unpad(states[-1], mask, skip=self._pipeline.prompt_template_encode_start_idx)
        return Conditioning(hidden, attention_mask=mask)

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        patches = patchify(noisy)
        height, width = patches.shape[2:]
        output = self.denoiser(
            pack_latents(patches),
            encoder_hidden_states=conditioning.prompt_embeds,
            encoder_hidden_states_mask=conditioning.attention_mask,
            timestep=timesteps.to(noisy) / self.schedule.num_train_timesteps,
            img_shapes=[[(1, height, width)]] * len(noisy),
            guidance=self._guidance(conditioning),
            return_dict=False,
        )[0]
        return unpatchify(unpack_latents(output, height))

    def _regional_flow(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        prompts: Sequence[Conditioning],
        masks: Tensor,
        adapted: Sequence[str],
    ) -> Tensor:
        """As for all families; the rotary positions of each prompt begin anew."""
        length = prompts[0].prompt_embeds.shape[1]

        def repeat(_: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            image, text = output  # rotations
            return image, text[:length].repeat(len(prompts), 1)

        denoiser: Any = self.denoiser
        handle = denoiser.pos_embed.register_forward_hook(repeat)
        try:
            return super()._regional_flow(noisy, timesteps, prompts, masks, adapted)
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
