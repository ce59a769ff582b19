"""Stable Diffusion 3 and 3.5 (Esser et al., arXiv 2403.03206)."""

from collections.abc import Sequence

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import T5Encoder
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase

T5_LENGTH = 256


class StableDiffusion3(TransformerBase):
    """Two CLIP text encoders, concatenated, then T5; the pooled embeddings of both CLIPs.

    Without T5 there are zeros in its place, as the published checkpoints were trained for.
    """

    family = "sd3"
    pipeline_class = StableDiffusion3Pipeline
    components = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    unused = {"image_encoder": None, "feature_extractor": None}
    text_first = False
    linear_sigmas = False
    max_shift = 1.16

    def _encoders(self) -> list[PromptEncoder]:
        encoders = [self._encoder("text_encoder"), self._encoder("text_encoder_2")]
        if self._pipeline.text_encoder_3 is not None:
            encoders.append(self._encoder("text_encoder_3", T5Encoder, length=T5_LENGTH))
        return encoders

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        outputs = [encoder(prompts) for encoder in self.encoders]
        both = torch.cat([output.hidden_states[-2] for output in outputs[:2]], dim=-1)
        width = self._pipeline.transformer.config.joint_attention_dim
        words = outputs[2].last_hidden_state if outputs[2:] else both.new_zeros(len(prompts), T5_LENGTH, width)
        hidden = torch.cat([nn.functional.pad(both, (0, width - both.shape[-1])), words], dim=1)
        return Conditioning(hidden, torch.cat([output.text_embeds for output in outputs[:2]], dim=-1))

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return self.denoiser(
            noisy,
            conditioning.prompt_embeds,
            conditioning.pooled_prompt_embeds,
            timestep=timesteps.to(noisy.device),
            return_dict=False,
        )[0]
