"""FLUX.1 (Black Forest Labs, 2024): dev and schnell."""

from collections.abc import Sequence

import torch
from diffusers import FluxPipeline
from torch import Tensor

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import T5Encoder
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, as_latents, as_tokens, patched, positions, unpatched


class Flux(TransformerBase):
    """T5's words, and CLIP's pooled vector; both encoders take tokens.

    Guidance was distilled into the denoiser: dev is told how much, schnell keeps to its own.
    """

    family = "flux"
    pipeline_class = FluxPipeline
    components = ("transformer", "vae", "text_encoder", "text_encoder_2")
    unused = {"image_encoder": None, "feature_extractor": None}
    text_sites = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_transformer_blocks\.\d+\.attn\.to_[kv]"
    packing = 4
    distilled = True

    def _encoders(self) -> list[PromptEncoder]:
        pipeline = self._pipeline
        return [
            PromptEncoder("text_encoder", pipeline.tokenizer, pipeline.text_encoder),
            T5Encoder("text_encoder_2", pipeline.tokenizer_2, pipeline.text_encoder_2, length=512),
        ]

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        clip, t5 = (encoder(prompts) for encoder in self.encoders)
        return Conditioning(t5.last_hidden_state, clip.pooler_output)

    def _flow(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        patches = patched(noisy)
        height, width = patches.shape[2:]
        places = torch.nn.functional.pad(positions(height, width, noisy.device), (1, 0))  # which image, row, column
        answer = self.denoiser(
            as_tokens(patches),
            encoder_hidden_states=condition.prompt_embeds,
            pooled_projections=condition.pooled_prompt_embeds,
            timestep=timesteps.to(noisy) / self.schedule.num_train_timesteps,
            img_ids=places.to(noisy),
            txt_ids=noisy.new_zeros(condition.prompt_embeds.shape[1], 3),
            guidance=self._told_guidance(condition),
            return_dict=False,
        )[0]
        return unpatched(as_latents(answer, height))
