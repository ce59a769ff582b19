"""Z-Image (Tongyi Lab, arXiv 2511.22699): base and turbo."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from mnemon.models.conditioning import Conditioning
from mnemon.models.encoders import LanguageEncoder, chat_affixes, unpad
from mnemon.models.regional_cross_attention import RegionalPrompts, per_prompt
from mnemon.models.regional_joint_attention import attention_bias, biased_attention
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase

MULTIPLE = 32
"""The denoiser pads the tokens of a prompt, and those of an image, to a multiple of this; padding is attended to."""


class ZImage(TransformerBase):
    """The second-to-last hidden states of a language model, in one stream with the image: the keys and values of most
    target modules are of text and image alike, so a concept also changes how the image attends to itself.

    A guidance scale of g is the pipeline's `guidance_scale` g - 1. Turbo is sampled with 1.
    """

    family = "z-image"
    pipeline_class = ZImagePipeline
    components = ("transformer", "vae", "text_encoder")
    target_pattern = r"(layers|context_refiner)\.\d+\.attention\.to_[kv]"

    def _encoders(self) -> list[PromptEncoder]:
        affixes = chat_affixes(self._pipeline.tokenizer, add_generation_prompt=True, enable_thinking=True)
        return [self._encoder("text_encoder", LanguageEncoder, length=512, affixes=affixes, pad_to_length=False)]

    def _default_side(self) -> int:
        return 1024 // self._pipeline.vae_scale_factor

    @property
    def fixed_first_token(self) -> bool:
        return False  # most target modules read the image first

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, mask = self.encoders[0](prompts)
        hidden, mask = unpad(states[-2], mask, skip=0)
        return Conditioning(hidden, attention_mask=mask)

    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        embeds = _unpadded(conditioning)
        images = list(noisy[:, :, None])  # (channels, 1, height, width) each
        reverse = 1 - timesteps.to(noisy.device) / self.schedule.num_train_timesteps  # its time and flow are reversed
        output = self.denoiser(images, reverse, embeds, return_dict=False)[0]
        return -torch.stack(list(output)).squeeze(2)

    def _regional_flow(self, noisy: Tensor, timesteps: Tensor, regional: RegionalPrompts) -> Tensor:
        """Text and image are in one stream, the image first, and each row is as long as its own prompts."""
        prompts, masks, adapted = regional.regions, regional.masks, regional.adapted
        embeds = [_unpadded(prompt) for prompt in prompts]
        lengths = torch.tensor(
            [[len(one) + -len(one) % MULTIPLE for one in rows] for rows in embeds]
        )  # (prompts, rows)
        text = pad_sequence([_membership(row).to(masks) for row in lengths.T], batch_first=True).transpose(1, 2)
        padding = masks.mean(dim=2, keepdim=True).expand(-1, -1, -masks.shape[2] % MULTIPLE)
        image = torch.cat([masks, padding], dim=2)
        membership = torch.cat([image, text], dim=2)
        refiners = self._modules_at(r"context_refiner\.\d+\.attention")
        layers = self._modules_at(r"layers\.\d+\.attention")
        with (
            self._concatenated(embeds),
            biased_attention(refiners, attention_bias(text, slice(0))),
            biased_attention(layers, attention_bias(membership, slice(image.shape[2]))),
            per_prompt(self._modules(path for path in adapted if path.startswith("context_refiner.")), text),
            per_prompt(self._modules(path for path in adapted if path.startswith("layers.")), membership),
        ):
            return self._flow(noisy, timesteps, prompts[0])

    @contextmanager
    def _concatenated(self, embeds: Sequence[Sequence[Tensor]]) -> Iterator[None]:
        """Within the block the denoiser takes all prompts, each from position 1 on, and the image after the longest."""
        denoiser: Any = self.denoiser
        original = denoiser.patchify_and_embed

        def concatenated(images: list[Tensor], _: list[Tensor], *sizes: int) -> tuple[Any, ...]:
            parts = [original(images, rows, *sizes) for rows in embeds]  # seven lists of rows each
            rows = range(len(images))
            longest = [max(range(len(parts)), key=lambda prompt: len(parts[prompt][1][row])) for row in rows]
            # A prompt comes with more positions than it has tokens; the denoiser drops those at the end.
            text, positions, padding = (
                [torch.cat([part[kind][row][: len(part[1][row])] for part in parts]) for row in rows]
                for kind in (1, 4, 6)
            )
            image_positions = [parts[prompt][3][row] for row, prompt in enumerate(longest)]
            return parts[0][0], text, parts[0][2], image_positions, positions, parts[0][5], padding

        denoiser.patchify_and_embed = concatenated
        try:
            yield
        finally:
            del denoiser.patchify_and_embed


def _unpadded(conditioning: Conditioning) -> list[Tensor]:
    """For each row the prompt embeddings without padding, (tokens, width)."""
    mask = conditioning.attention_mask
    assert mask is not None
    return [embeds[own] for embeds, own in zip(conditioning.prompt_embeds, mask, strict=True)]


def _membership(lengths: Tensor) -> Tensor:
    """Which prompt each token of prompts of these lengths, one after another, belongs to: (tokens, prompts) one-hot."""
    return one_hot(torch.arange(len(lengths)).repeat_interleave(lengths), len(lengths))
