"""FLUX.1 (Black Forest Labs, 2024): dev and schnell."""

from collections.abc import Sequence

from diffusers import FluxPipeline
from torch import Tensor
from torch.nn.functional import pad

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import T5Encoder
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase, patchify, position_ids, unpatchify


class Flux(TransformerBase):
    """T5's hidden states, and CLIP's pooled embedding.

    Guidance was distilled into the denoiser: dev takes the scale as input, schnell has a fixed one.

    Text has keys and values of its own in the double-stream blocks only. In the single-stream blocks text and image
    share `to_k` and `to_v`: adapted there, a concept also changes how the image attends to itself.
    """

    family = "flux"
    pipeline_class = FluxPipeline
    components = ("transformer", "vae", "text_encoder", "text_encoder_2")
    unused = {"image_encoder": None, "feature_extractor": None}
    target_pattern = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_transformer_blocks\.\d+\.attn\.to_[kv]"
    packing = 4
    distilled = True

    def _encoders(self) -> list[PromptEncoder]:
        return [self._encoder("text_encoder"), self._encoder("text_encoder_2", T5Encoder, length=512)]

    @property
    def fixed_first_token(self) -> bool:
        return self.encoders[1].fixed_first_token  # CLIP's features are only pooled

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        clip, t5 = (encoder(prompts) for encoder in self.encoders)
        return Conditioning(t5.last_hidden_state, clip.pooler_output)

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        patches = patchify(noisy)
        image_ids = pad(position_ids(patches), (1, 0))  # which image, row, column
        output = self._packed_flow(
            patches,
            timesteps,
            conditioning,
            pooled_projections=conditioning.pooled_prompt_embeds,
            img_ids=image_ids.to(noisy),
            txt_ids=noisy.new_zeros(conditioning.prompt_embeds.shape[1], 3),
        )
        return unpatchify(output)
