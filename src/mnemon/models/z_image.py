"""Z-Image (Tongyi Lab, arXiv 2511.22699): base and turbo."""

from collections.abc import Sequence

import torch
from diffusers import ZImagePipeline
from torch import Tensor

from mnemon.models.base import Condition
from mnemon.models.encoders import LanguageEncoder, chat_frame, squeezed
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase


class ZImage(TransformerBase):
    """The last but one hidden states of a language model, in one stream with the picture. The model takes tokens.

    A guidance of g is the pipeline's `guidance_scale` g - 1. Turbo is drawn with a guidance of 1.
    """

    family = "z-image"
    pipeline_class = ZImagePipeline
    components = ("transformer", "vae", "text_encoder")
    unused = {}
    text_sites = r"(layers|context_refiner)\.\d+\.attention\.to_[kv]"
    packing = 1

    def _encoders(self) -> list[PromptEncoder]:
        tokenizer = self._pipeline.tokenizer
        frame = chat_frame(tokenizer, add_generation_prompt=True, enable_thinking=True)
        encoder = self._pipeline.text_encoder
        return [LanguageEncoder("text_encoder", tokenizer, encoder, 512, frame, filled=False)]

    def _usual_side(self) -> int:
        return 1024 // self._pipeline.vae_scale_factor

    def _encode(self, prompts: Sequence[str]) -> Condition:
        states, mask = self.encoders[0](prompts)
        hidden, mask = squeezed(states[-2], mask, skip=0)
        return Condition(hidden, mask=mask)

    def _flow(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        assert condition.mask is not None
        words = [hidden[heard] for hidden, heard in zip(condition.hidden, condition.mask, strict=True)]
        pictures = list(noisy[:, :, None])  # (channels, 1, height, width) each
        clean = 1 - timesteps.to(noisy.device) / self.noise.steps  # its clock runs the other way, and so does its flow
        answer = self.denoiser(pictures, clean, words, return_dict=False)[0]
        return -torch.stack(list(answer)).squeeze(2)
