"""What the transformer families share: flow matching, latents in patches, and text that goes through every block."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.base import Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.noise_schedule import Flow
from mnemon.models.pipeline import PipelineBase
from mnemon.models.prompt_cache import RememberedPrompts
from mnemon.models.regional import on_grid
from mnemon.models.regional_joint import attending, attention_bias, changed_apart, text_shares


class TransformerBase(PipelineBase):
    """A base whose denoiser is a transformer and whose target is the flow from image to noise.

    Attributes:
        step: what sides of images are multiples of, in pixels.
    """

    text_sites: ClassVar[str]
    """A pattern for the paths of the linear layers that turn text into keys and values."""
    joint_layers: ClassVar[str] = r"(single_)?transformer_blocks\.\d+\.attn"
    """A pattern for the paths of the layers in which text and image attend together."""
    text_first: ClassVar[bool] = True
    """Whether the text's tokens come before the image's there."""
    packing: ClassVar[int]
    """How many of a latent's places one token of the denoiser holds, where the pipeline packs them; else 1."""
    even: ClassVar[bool] = True
    """Whether the pipeline starts drawing from evenly spaced noise levels."""
    static_text_features = False
    longest_shift: ClassVar[float] = 1.15
    """μ at the longest sequence where the scheduler's config does not say."""

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        self._refuse_unlike()
        self._prompts = RememberedPrompts(self.encoders, self._encode, self.device)
        self.step = 2 * pipeline.vae_scale_factor
        self._resolution = self._usual_side() * pipeline.vae_scale_factor

    @property
    def resolution(self) -> int:
        """Side of its images in pixels: what the pipeline draws by default, until it is set. The schedule follows.

        Raises:
            MnemonError: set to what is no multiple of `step`.
        """
        return self._resolution

    @resolution.setter
    def resolution(self, side: int) -> None:
        if side < self.step or side % self.step:
            near = max(1, round(side / self.step)) * self.step
            raise MnemonError(
                f"A {self.family} base draws images of a multiple of {self.step} pixels a side, not {side}: "
                f"choose {near}, for example."
            )
        self._resolution = side

    @abstractmethod
    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode distinct prompts."""

    @abstractmethod
    def _flow(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        """The denoiser's answer, noise minus image, all in the denoiser's dtype but the timesteps (0..1000)."""

    def _usual_side(self) -> int:
        """Side of the latents that the pipeline draws by default."""
        return self._pipeline.default_sample_size

    def _noise_schedule(self) -> Flow:
        scheduler = self._pipeline.scheduler
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise MnemonError(
                f"'{self.name}' comes with a {type(scheduler).__name__}, but {self.family} bases are flows: set the "
                "scheduler in its model_index.json to FlowMatchEulerDiscreteScheduler."
            )
        return Flow(scheduler.config, self._mu, self.even)

    def _mu(self, steps: int) -> float:
        """The schedule's shift: linear in the number of the image's tokens, between the config's two points."""
        config = self._pipeline.scheduler.config
        short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", self.longest_shift)
        return low + (high - low) * (self._image_tokens() - short) / (long - short)

    def _image_tokens(self) -> int:
        return (self.resolution // self.step) ** 2

    def target_modules(self) -> dict[str, nn.Linear]:
        return {
            path: module
            for path, module in self.denoiser.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(self.text_sites, path)
        }

    def set_tokens(self, tokens: Mapping[str, Tokens]) -> None:
        for name, vectors in tokens.items():
            if any(own.ndim == 3 for own in vectors.values()):
                raise MnemonError(
                    f"The token <{name}> has vectors of its own for each layer, but in a {self.family} base the text "
                    "goes through all layers in one stream. Choose a method with plain tokens."
                )
        super().set_tokens(tokens)

    def token_features(self, prompts: Sequence[str]) -> list[Tensor]:
        raise MnemonError(
            f"In a {self.family} base the text changes from layer to layer, so no layer reads the words as encoded, "
            "and a method that works on encoded words cannot run. Choose another, such as lora."
        )

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """As in `Base`; each distinct prompt is encoded once and remembered, as `RememberedPrompts` says."""
        return self._prompts(prompts, self.tokens)

    def offload_text_encoders(self, on: bool = True) -> None:
        """Let the text encoders rest in main memory; they come to the device only for prompts not remembered.

        A prompt whose token is being trained needs them at every step: then they stay on the device.
        """
        self._prompts.offload(on)

    def _told_guidance(self, condition: Conditioning) -> Tensor | None:
        """Guidance (batch,) for a denoiser that is told it. In training it is 1: the images themselves, not more."""
        denoiser: Any = self.denoiser
        if not denoiser.config.guidance_embeds:
            return None
        ones = torch.ones(len(condition.prompt_embeds), device=self.device)
        return ones if condition.guidance is None else condition.guidance

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        """The flow in the dtype of `noisy`, which is cast to the denoiser's on the way."""
        inside, places = self._inside or ([], None)
        texts = [text.to(self.dtype) for text in (condition, *inside)]
        if places is None:
            return self._flow(noisy.to(self.dtype), timesteps, texts[0]).to(noisy.dtype)
        shares = on_grid(places, self._image_tokens()).flatten(2)
        return self._flow_apart(noisy.to(self.dtype), timesteps, texts, shares).to(noisy.dtype)

    def _flow_apart(self, noisy: Tensor, timesteps: Tensor, texts: Sequence[Conditioning], places: Tensor) -> Tensor:
        """As `_flow`, with several texts; `places` (rows, texts, tokens of the image) says where which is heard."""
        hidden = torch.cat([text.prompt_embeds for text in texts], dim=1)
        masks = [text.attention_mask for text in texts if text.attention_mask is not None]
        heard = torch.cat(masks, dim=1) if masks else torch.ones(hidden.shape[:2], dtype=torch.bool, device=self.device)
        words = text_shares(len(texts), texts[0].prompt_embeds.shape[1], heard)
        share = torch.cat([words, places] if self.text_first else [places, words], dim=2)
        start = words.shape[2] if self.text_first else 0
        bias = attention_bias(share, slice(start, start + places.shape[2]))
        joined = replace(texts[0], prompt_embeds=hidden, attention_mask=heard if masks else None)
        with attending(self._modules_at(self.joint_layers), bias), self._changed_apart(words, share):
            return self._flow(noisy, timesteps, joined)

    @contextmanager
    def _changed_apart(self, words: Tensor, share: Tensor) -> Iterator[None]:
        """Each text under its own changes, in the layers that read the text alone and in those that read all tokens."""
        text_only = [
            target for path, target in self.target_modules().items() if path.rpartition(".")[2].startswith("add_")
        ]
        joint = [target for target in self.target_modules().values() if target not in text_only]
        with changed_apart(text_only, words), changed_apart(joint, share):
            yield

    def _modules_at(self, pattern: str) -> list[nn.Module]:
        return [module for path, module in self.denoiser.named_modules() if re.fullmatch(pattern, path)]

    def latent_shape(self) -> tuple[int, int, int]:
        denoiser: Any = self.denoiser
        side = self.resolution // self._pipeline.vae_scale_factor
        return denoiser.config.in_channels // self.packing, side, side

    def _scaled(self, images: Tensor) -> Tensor:
        config = self.vae.config
        return (self.vae.encode(images).latent_dist.mode() - (config.shift_factor or 0)) * config.scaling_factor

    def _images(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0)).sample

    def _latent_channels(self) -> int:
        return self.vae.config.latent_channels

    def _refuse_unlike(self) -> None:
        denoiser: Any = self.denoiser
        taken, given = denoiser.config.in_channels, self._latent_channels() * self.packing
        if taken != given:
            raise MnemonError(
                f"The transformer of '{self.name}' takes {taken} channels where its autoencoder gives {given}: it "
                "edits images. Choose a text-to-image checkpoint."
            )


def patched(latents: Tensor) -> Tensor:
    """Latents (batch, channels, height, width) in 2 x 2 patches: (batch, 4 channels, height / 2, width / 2)."""
    return nn.functional.pixel_unshuffle(latents, 2)


def unpatched(latents: Tensor) -> Tensor:
    """Undo `patched`."""
    return nn.functional.pixel_shuffle(latents, 2)


def as_tokens(latents: Tensor) -> Tensor:
    """Latents (batch, channels, height, width) as one token a place, row by row: (batch, height width, channels)."""
    return latents.flatten(2).transpose(1, 2)


def as_latents(tokens: Tensor, height: int) -> Tensor:
    """Undo `as_tokens`."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))


def positions(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column (height width, 2) of each place, row by row."""
    return torch.cartesian_prod(torch.arange(height, device=device), torch.arange(width, device=device))
