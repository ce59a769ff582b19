"""What the U-Net families share: an autoencoder, a U-Net with cross-attention to text, CLIP text encoders."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    def _encode(self, prompts: Sequence[str], layers: Sequence[int] | None = None) -> Condition:
        """Encode prompts; `layers` says for each whose vectors layer-wise tokens take."""

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

    def layers(self) -> list[str]:
        return list(dict.fromkeys(site.rpartition(".")[0] for site in self.sites()))

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
        layerwise = [prompt for prompt in distinct if any(encoder.is_layerwise(prompt) for encoder in self.encoders)]
        plain = [prompt for prompt in distinct if prompt not in layerwise]
        parts = [self._encode(plain)] if plain else []
        condition = Condition.cat(parts + ([self._encode_layerwise(layerwise)] if layerwise else []))
        order = plain + layerwise
        if order == list(prompts):
            return condition
        return condition[torch.tensor([order.index(prompt) for prompt in prompts], device=self.device)]

    def _encode_layerwise(self, prompts: Sequence[str]) -> Condition:
        """Each prompt once for every layer: hidden (batch, layers, length, width); the pooled vector is their mean."""
        count = len(self.layers())
        copies = [prompt for prompt in prompts for _ in range(count)]
        condition = self._encode(copies, [layer for _ in prompts for layer in range(count)])
        pooled = condition.pooled
        return Condition(
            condition.hidden.unflatten(0, (len(prompts), count)),
            None if pooled is None else pooled.unflatten(0, (len(prompts), count)).mean(1),
        )

    def heard(self, prompts: Sequence[str]) -> list[Tensor]:
        conditions = [self.encode_prompts([prompt]).hidden[0] for prompt in prompts]  # each ([layers,] length, width)
        counts = [self.encoders[0].words(prompt) for prompt in prompts]
        return [hidden[..., 1 : 1 + words, :] for hidden, words in zip(conditions, counts, strict=True)]

    def known_words(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if all(encoder.knows(word) for encoder in self.encoders)]

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
        told = self._heard(condition)
        if hidden.ndim == 3:
            answer = self.denoiser(noisy.to(self.dtype), timesteps, encoder_hidden_states=hidden, **told)
        else:
            with _told_apart([self.denoiser.get_submodule(layer) for layer in self.layers()], hidden):
                answer = self.denoiser(noisy.to(self.dtype), timesteps, encoder_hidden_states=hidden[:, 0], **told)
        return answer.sample.to(noisy.dtype)

    def latent_shape(self) -> tuple[int, int, int]:
        unet: Any = self.denoiser
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return unet.config.in_channels, height, width

    def sampling_scheduler(self) -> Any:
        return self.noise.sampling_scheduler()


@contextmanager
def _told_apart(layers: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """Within the block, cross-attention layer l hears hidden[:, l] of hidden (batch, layers, length, width)."""

    def telling(own: Tensor) -> Any:
        return lambda module, args, options: (args, {**options, "encoder_hidden_states": own})

    handles = [
        layer.register_forward_pre_hook(telling(own), with_kwargs=True)
        for layer, own in zip(layers, hidden.unbind(1), strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse_unlike(unet: Any, vae: Any, name: str) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        raise MnemonError(
            f"The U-Net of '{name}' takes {unet.config.in_channels} channels where its autoencoder gives "
            f"{vae.config.latent_channels}: it edits pictures. Choose a text-to-image checkpoint."
        )
