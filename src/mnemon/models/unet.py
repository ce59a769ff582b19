"""What the U-Net families share: an autoencoder, a U-Net with cross-attention to text, CLIP text encoders."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.base import Base, Condition, Tokens
from mnemon.models.fingerprint import fingerprint_of_modules
from mnemon.models.noise import noise_from
from mnemon.models.tokens import PromptEncoder


class UNetBase(Base):
    """A base around a diffusers pipeline. A family says which pipeline, its encoders, and how prompts are heard.

    Args:
        pipeline: its modules are frozen in place and used as they are; put it on its device beforehand.
        name: what the person asked for.
        fingerprint: sha256 of the weights' files; without it the tensors are hashed.
    """

    pipeline_class: ClassVar[Any]
    """The diffusers pipeline of the family."""
    components: ClassVar[tuple[str, ...]]
    """The pipeline's parts that have weights."""
    unused: ClassVar[dict[str, Any]]
    """Parts of the pipeline that are not loaded, and switches for it."""

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        modules: dict[str, nn.Module] = {part: getattr(pipeline, part) for part in self.components}
        self.name = name
        self._pipeline = pipeline
        self.denoiser = modules["unet"]
        self.vae: Any = pipeline.vae
        _refuse_unlike(self.denoiser, self.vae, name)
        for module in modules.values():
            module.requires_grad_(False).eval()
        if self.vae.config.force_upcast and self.dtype == torch.float16:
            self.vae.float()  # this autoencoder overflows in fp16
        self.noise = noise_from(pipeline.scheduler)
        self.resolution = self.latent_shape()[1] * pipeline.vae_scale_factor
        self.fingerprint = fingerprint or fingerprint_of_modules(modules)
        self.encoders = [PromptEncoder(part, tokenizer, modules[part]) for part, tokenizer in self._tokenizers()]
        self.tokens = {}

    @abstractmethod
    def _tokenizers(self) -> list[tuple[str, Any]]:
        """(text encoder's name, its tokenizer), in the order of the pipeline."""

    @abstractmethod
    def _encode(self, prompts: Sequence[str]) -> Condition: ...

    def _heard(self, condition: Condition) -> dict[str, Any]:
        """What the U-Net is given beside the hidden states."""
        return {}

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    def pipeline(self) -> Any:
        """A plain diffusers pipeline on the same modules: what is folded into the base now is in its pictures too.

        It shares memory with the base. Concept tokens are not in it.
        """
        switches = {key: value for key, value in self.unused.items() if value is not None}
        return type(self._pipeline)(**self._pipeline.components, **switches)

    def gradient_checkpointing(self, on: bool) -> None:
        """Trade time for memory in the U-Net's backward pass; the numbers stay the same."""
        unet: Any = self.denoiser
        if on:
            unet.enable_gradient_checkpointing()
        else:
            unet.disable_gradient_checkpointing()

    def sites(self) -> dict[str, nn.Linear]:
        return {
            path: module
            for path, module in self.denoiser.named_modules()
            if isinstance(module, nn.Linear) and path.endswith(("attn2.to_k", "attn2.to_v"))
        }

    def set_tokens(self, tokens: Mapping[str, Tokens]) -> None:
        for encoder in self.encoders:
            missing = [name for name, vectors in tokens.items() if encoder.name not in vectors]
            if missing:
                raise MnemonError(
                    f"The token <{missing[0]}> has no vectors for the {encoder.name} of this base ({self.family}): "
                    "the concept was learned on a base of another family."
                )
        for encoder in self.encoders:
            encoder.set_vectors({name: vectors[encoder.name] for name, vectors in tokens.items()})
        self.tokens = dict(tokens)

    def token_statistics(self) -> dict[str, tuple[int, float, float]]:
        return {encoder.name: encoder.statistics() for encoder in self.encoders}

    def word_vectors(self, word: str) -> dict[str, Tensor]:
        return {encoder.name: encoder.word_vector(word) for encoder in self.encoders}

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """As in `Base`; each distinct prompt goes through the text encoders once.

        Words beyond the encoder's length are ignored with a warning; a concept beyond it is an error.
        """
        distinct = list(dict.fromkeys(prompts))
        condition = self._encode(distinct)
        if len(distinct) == len(prompts):
            return condition
        return condition[torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)]

    @torch.no_grad()
    def encode_images(self, pictures: Tensor) -> Tensor:
        inputs = pictures.to(self.device, self.vae.dtype) * 2 - 1
        return (self.vae.encode(inputs).latent_dist.mode() * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        inputs = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        return (self.vae.decode(inputs).sample.float() / 2 + 0.5).clamp(0, 1)

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        return self.noise.sample_timesteps(batch, generator).to(self.device)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.noise.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.noise.target(latents, noise, timesteps)

    def snr(self, timesteps: Tensor) -> Tensor:
        return self.noise.snr(timesteps)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The U-Net's answer in the dtype of `noisy`, which is cast to the U-Net's on the way."""
        hidden = condition.hidden.to(self.dtype)
        answer = self.denoiser(noisy.to(self.dtype), timesteps, encoder_hidden_states=hidden, **self._heard(condition))
        return answer.sample.to(noisy.dtype)

    def latent_shape(self) -> tuple[int, int, int]:
        unet: Any = self.denoiser
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return unet.config.in_channels, height, width

    def sampling_scheduler(self) -> Any:
        return self.noise.sampling_scheduler()


def _refuse_unlike(unet: Any, vae: Any, name: str) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        raise MnemonError(
            f"The U-Net of '{name}' takes {unet.config.in_channels} channels where its autoencoder gives "
            f"{vae.config.latent_channels}: it edits pictures. Choose a text-to-image checkpoint."
        )
