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
from mnemon.models.encoders import LanguageEncoder, chat_frame, squeezed
from mnemon.models.regional_joint import attending, attention_bias, changed_apart
from mnemon.models.tokens import PromptEncoder
from mnemon.models.transformer import TransformerBase

MULTIPLE = 32
"""The denoiser fills the tokens of a text, and those of an image, up to a multiple of this; it hears the filling."""


class ZImage(TransformerBase):
    """The last but one hidden states of a language model, in one stream with the image. The model takes tokens.

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

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        states, mask = self.encoders[0](prompts)
        hidden, mask = squeezed(states[-2], mask, skip=0)
        return Conditioning(hidden, attention_mask=mask)

    def _flow(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        words = _words(condition)
        images = list(noisy[:, :, None])  # (channels, 1, height, width) each
        clean = (
            1 - timesteps.to(noisy.device) / self.schedule.num_train_timesteps
        )  # its clock runs the other way, and so does its flow
        answer = self.denoiser(images, clean, words, return_dict=False)[0]
        return -torch.stack(list(answer)).squeeze(2)

    def _flow_apart(self, noisy: Tensor, timesteps: Tensor, texts: Sequence[Conditioning], places: Tensor) -> Tensor:
        """Text and image are in one stream, the image first, and each row is as long as its own texts."""
        told = [_words(text) for text in texts]
        lengths = torch.tensor([[_filled(len(words)) for words in rows] for rows in told])  # (texts, rows)
        words = pad_sequence([_one_text_each(row).to(places) for row in lengths.T], batch_first=True).transpose(1, 2)
        filling = places.mean(dim=2, keepdim=True).expand(-1, -1, -places.shape[2] % MULTIPLE)
        image = torch.cat([places, filling], dim=2)
        share = torch.cat([image, words], dim=2)
        refining = attending(self._modules_at(r"context_refiner\.\d+\.attention"), attention_bias(words, slice(0)))
        bias = attention_bias(share, slice(image.shape[2]))
        target_modules = self.target_modules()
        text_only = [target for path, target in target_modules.items() if path.startswith("context_refiner.")]
        joint = [target for path, target in target_modules.items() if path.startswith("layers.")]
        with (
            self._one_after_another(told),
            refining,
            attending(self._modules_at(r"layers\.\d+\.attention"), bias),
            changed_apart(text_only, words),
            changed_apart(joint, share),
        ):
            return self._flow(noisy, timesteps, texts[0])

    @contextmanager
    def _one_after_another(self, told: Sequence[Sequence[Tensor]]) -> Iterator[None]:
        """Within the block the denoiser hears all texts, each from position 1 on, and the image after the longest."""
        denoiser: Any = self.denoiser
        alone = denoiser.patchify_and_embed

        def together(images: list[Tensor], _: list[Tensor], *sizes: int) -> tuple[Any, ...]:
            parts = [alone(images, words, *sizes) for words in told]  # seven lists of rows each
            longest = [max(range(len(told)), key=lambda text: len(parts[text][1][row])) for row in range(len(images))]
            # A text comes with more positions than it has tokens; the denoiser leaves out those at the end.
            words, positions, filled = (
                [torch.cat([part[kind][row][: len(part[1][row])] for part in parts]) for row in range(len(images))]
                for kind in (1, 4, 6)
            )
            after = [parts[text][3][row] for row, text in enumerate(longest)]
            return parts[0][0], words, parts[0][2], after, positions, parts[0][5], filled

        denoiser.patchify_and_embed = together
        try:
            yield
        finally:
            del denoiser.patchify_and_embed


def _words(condition: Conditioning) -> list[Tensor]:
    """For each row the states of its words, (words, width)."""
    assert condition.attention_mask is not None
    return [hidden[heard] for hidden, heard in zip(condition.prompt_embeds, condition.attention_mask, strict=True)]


def _filled(length: int) -> int:
    return length + -length % MULTIPLE


def _one_text_each(lengths: Tensor) -> Tensor:
    """Tokens of texts of these lengths, one after another, to the text they belong to: (tokens, texts) of 0 and 1."""
    return one_hot(torch.arange(len(lengths)).repeat_interleave(lengths), len(lengths))
