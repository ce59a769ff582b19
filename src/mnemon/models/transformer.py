"""What the transformer families share: flow matching, latents in patches, and text that goes through every block."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.configs import check_flow
from mnemon.models.noise_schedule import Flow
from mnemon.models.prompt_cache import PromptCache
from mnemon.models.regional_cross_attention import RegionalPrompts, per_prompt, resized
from mnemon.models.regional_joint_attention import attention_bias, biased_attention, text_membership


class TransformerBase(Base):
    """A base whose denoiser is a transformer and whose target is the flow from image to noise.

    Attributes:
        step: what sides of images are multiples of, in pixels.
    """

    target_pattern = r"transformer_blocks\.\d+\.attn\.add_[kv]_proj"
    attention_pattern: ClassVar[str] = r"(single_)?transformer_blocks\.\d+\.attn"
    """A pattern for the paths of the layers with joint attention of text and image."""
    text_first: ClassVar[bool] = True
    """Whether the text's tokens come before the image's there."""
    linear_sigmas: ClassVar[bool] = True
    """Whether the pipeline samples from evenly spaced noise levels."""
    static_text_features = False
    max_shift: ClassVar[float] = 1.15
    """μ at the longest sequence where the scheduler's config does not say."""

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        super().__init__(pipeline, name, fingerprint)
        self.prompt_cache = PromptCache(self.encoders, self._encode, self.device)
        self.step = 2 * pipeline.vae_scale_factor
        self._resolution = self._default_side() * pipeline.vae_scale_factor

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
                f"A {self.family} base generates images of a multiple of {self.step} pixels a side, not {side}: "
                f"choose {near}, for example."
            )
        self._resolution = side

    @abstractmethod
    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode distinct prompts."""

    @abstractmethod
    def _flow(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's output, noise minus image; all in the denoiser's dtype but the timesteps (0..1000)."""

    def _packed_flow(self, patches: Tensor, timesteps: Tensor, conditioning: Conditioning, **inputs: Any) -> Tensor:
        """The output for patches (batch, channels, height, width) of a denoiser that takes them packed as tokens;
        `inputs` are the family's own."""
        tokens = self.denoiser(
            pack_latents(patches),
            encoder_hidden_states=conditioning.prompt_embeds,
            timestep=timesteps.to(patches) / self.schedule.num_train_timesteps,
            guidance=self._guidance(conditioning),
            return_dict=False,
            **inputs,
        )[0]
        return unpack_latents(tokens, patches.shape[2])

    def _default_side(self) -> int:
        """Side of the latents that the pipeline samples by default."""
        return self._pipeline.default_sample_size

    def _noise_schedule(self) -> Flow:
        scheduler = self._pipeline.scheduler
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise MnemonError(
                f"'{self.name}' comes with a {type(scheduler).__name__}, but {self.family} bases are flows: set the "
                "scheduler in its model_index.json to FlowMatchEulerDiscreteScheduler."
            )
        check_flow(scheduler, self.name)
        return Flow(scheduler.config, self._mu, self.linear_sigmas)

    def _mu(self, steps: int) -> float:
        """The schedule's shift: linear in the number of the image's tokens, between the config's two points."""
        config = self._pipeline.scheduler.config
        short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", self.max_shift)
        return low + (high - low) * (self._image_tokens() - short) / (long - short)

    def _image_tokens(self) -> int:
        return (self.resolution // self.step) ** 2

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
        return self.prompt_cache(prompts, self.tokens)

    def offload_text_encoders(self, on: bool = True) -> None:
        """Keep the text encoders on the CPU and move them to the device only for prompts that are not cached.

        A prompt whose token is being trained needs them at every step: then they stay on the device.
        """
        self.prompt_cache.offload(on)

    def _guidance(self, conditioning: Conditioning) -> Tensor | None:
        """Guidance (batch,) for a denoiser that takes it as input. In training it is 1: the images themselves."""
        denoiser: Any = self.denoiser
        if not denoiser.config.guidance_embeds:
            return None
        ones = torch.ones(len(conditioning), device=self.device)
        return ones if conditioning.guidance is None else conditioning.guidance

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        inputs = noisy.to(self.dtype)
        if self._regional is None:
            return self._flow(inputs, timesteps, conditioning.to(self.dtype)).to(noisy.dtype)
        prompts = [prompt.to(self.dtype) for prompt in (conditioning, *self._regional.regions)]
        masks = resized(self._regional.masks, self._image_tokens()).flatten(2)
        adapted = [path for path in self.target_modules() if path in self._regional.adapted]
        regional = RegionalPrompts(prompts, masks, adapted)
        return self._regional_flow(inputs, timesteps, regional).to(noisy.dtype)

    def _regional_flow(self, noisy: Tensor, timesteps: Tensor, regional: RegionalPrompts) -> Tensor:
        """As `_flow`, with several prompts, the image's among them, and their masks (rows, prompts, image tokens)."""
        prompts, masks, adapted = regional.regions, regional.masks, regional.adapted
        embeds = torch.cat([prompt.prompt_embeds for prompt in prompts], dim=1)
        given = [prompt.attention_mask for prompt in prompts if prompt.attention_mask is not None]
        attention_mask = torch.cat(given, dim=1) if given else embeds.new_ones(embeds.shape[:2], dtype=torch.bool)
        text = text_membership(len(prompts), prompts[0].prompt_embeds.shape[1], attention_mask)
        membership = torch.cat([text, masks] if self.text_first else [masks, text], dim=2)
        start = text.shape[2] if self.text_first else 0
        bias = attention_bias(membership, slice(start, start + masks.shape[2]))
        joined = replace(prompts[0], prompt_embeds=embeds, attention_mask=attention_mask if given else None)
        text_only = [path for path in adapted if path.rpartition(".")[2].startswith("add_")]
        with (
            biased_attention(self._modules_at(self.attention_pattern), bias),
            per_prompt(self._modules(text_only), text),
            per_prompt(self._modules(path for path in adapted if path not in text_only), membership),
        ):
            return self._flow(noisy, timesteps, joined)

    def _modules(self, paths: Iterable[str]) -> list[nn.Module]:
        return [self.denoiser.get_submodule(path) for path in paths]

    def _modules_at(self, pattern: str) -> list[nn.Module]:
        return [module for path, module in self.denoiser.named_modules() if re.fullmatch(pattern, path)]

    def latent_shape(self) -> tuple[int, int, int]:
        denoiser: Any = self.denoiser
        side = self.resolution // self._pipeline.vae_scale_factor
        return denoiser.config.in_channels // self.packing, side, side


def patchify(latents: Tensor) -> Tensor:
    """Latents (batch, channels, height, width) in 2 x 2 patches: (batch, 4 channels, height / 2, width / 2)."""
    return nn.functional.pixel_unshuffle(latents, 2)


def unpatchify(latents: Tensor) -> Tensor:
    """The inverse of `patchify`."""
    return nn.functional.pixel_shuffle(latents, 2)


def pack_latents(latents: Tensor) -> Tensor:
    """Latents (batch, channels, height, width) as tokens, row by row: (batch, height width, channels)."""
    return latents.flatten(2).transpose(1, 2)


def unpack_latents(tokens: Tensor, height: int) -> Tensor:
    """The inverse of `pack_latents`."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))


def position_ids(latents: Tensor) -> Tensor:
    """Row and column (height width, 2) of each pixel of latents (batch, channels, height, width), row by row."""
    return torch.cartesian_prod(*(torch.arange(side, device=latents.device) for side in latents.shape[2:]))
