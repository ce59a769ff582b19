"""FLUX.1 (Black Forest Labs, 2024): dev and schnell."""

from collections.abc import Sequence

import torch
from diffusers import FluxPipeline
from torch import Tensor

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import T5Encoder
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, pack_latents, patchify, position_ids, unpack_latents, unpatchify


class Flux(TransformerBase):
    """T5's hidden states, and CLIP's pooled embedding.

    Guidance was distilled into the denoiser: dev takes the scale as input, schnell has a fixed one.
    """

    family = "flux"
    pipeline_class = FluxPipeline
    components = ("transformer", "vae", "text_encoder", "text_encoder_2")
    unused = {"image_encoder": None, "feature_extractor": None}
    target_pattern = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_transformer_blocks\.\d+\.attn\.to_[kv]"
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

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        patches = patchify(noisy)
        height, width = patches.shape[2:]
        image_ids = torch.nn.functional.pad(
            position_ids(height, width, noisy.device), (1, 0)
        )  # which image, row, column
        output = self.denoiser(
            pack_latents(patches),
            encoder_hidden_states=conditioning.prompt_embeds,
            pooled_projections=conditioning.pooled_prompt_embeds,
            timestep=timesteps.to(noisy) / self.schedule.num_train_timesteps,
            img_ids=image_ids.to(noisy),
            txt_ids=noisy.new_zeros(conditioning.prompt_embeds.shape[1], 3),
            guidance=self._guidance(conditioning),
            return_dict=False,
        )[0]
        return unpatchify(unpack_latents(output, height))
