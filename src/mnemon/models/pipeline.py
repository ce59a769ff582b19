"""What all families share: a frozen diffusers pipeline whose denoiser is conditioned on one or more text encoders."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.base import Base, Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.fingerprint import fingerprint_of_modules
from mnemon.models.noise_schedule import NoiseSchedule
from mnemon.models.regional_cross_attention import RegionalPrompts
from mnemon.models.tokens import PromptEncoder


class PipelineBase(Base):
    """A base around a diffusers pipeline.

    Args:
        pipeline: its modules are frozen in place and used as they are; put it on its device beforehand.
        name: what it was opened as.
        fingerprint: sha256 of the weights' files; without it the tensors are hashed.
    """

    pipeline_class: ClassVar[Any]
    """The diffusers pipeline of the family."""
    components: ClassVar[tuple[str, ...]]
    """The pipeline's parts that have weights, the denoiser first."""
    unused: ClassVar[dict[str, Any]]
    """Parts of the pipeline that are not loaded, and switches for it."""
    _regional: RegionalPrompts | None = None  # within `regional_prompts`

    def __init__(self, pipeline: Any, name: str, fingerprint: str | None = None) -> None:
        parts = {part: getattr(pipeline, part) for part in self.components}
        modules: dict[str, nn.Module] = {part: module for part, module in parts.items() if module is not None}
        self.name = name
        self._pipeline = pipeline
        self.denoiser = modules[self.components[0]]
        self.vae: Any = pipeline.vae
        for module in modules.values():
            module.requires_grad_(False).eval()
        self.schedule = self._noise_schedule()
        self.fingerprint = fingerprint or fingerprint_of_modules(modules)
        self.encoders = self._encoders()
        self.tokens = {}

    @abstractmethod
    def _encoders(self) -> list[PromptEncoder]:
        """The text encoders, in the order of the pipeline."""

    @abstractmethod
    def _noise_schedule(self) -> NoiseSchedule: ...

    @abstractmethod
    def _vae_encode(self, images: Tensor) -> Tensor:
        """Images in -1..1 to the latents the denoiser works on."""

    @abstractmethod
    def _vae_decode(self, latents: Tensor) -> Tensor:
        """Latents back to images in about -1..1."""

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(weight.dtype for weight in self.denoiser.parameters() if weight.is_floating_point())

    def pipeline(self) -> Any:
        """A plain diffusers pipeline on the same modules: what is merged into the base now is in its images too.

        It shares memory with the base. Concept tokens are not in it.
        """
        switches = {key: value for key, value in self.unused.items() if value is not None}
        return type(self._pipeline)(**self._pipeline.components, **switches)

    def gradient_checkpointing(self, on: bool) -> None:
        """Trade time for memory in the denoiser's backward pass; the numbers stay the same."""
        denoiser: Any = self.denoiser
        if on:
            denoiser.enable_gradient_checkpointing()
        else:
            denoiser.disable_gradient_checkpointing()

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

    def embedding_statistics(self) -> dict[str, tuple[int, float, float]]:
        return {encoder.name: encoder.statistics() for encoder in self.encoders}

    def word_embeddings(self, word: str) -> dict[str, Tensor]:
        return {encoder.name: encoder.word_embedding(word).to(self.device) for encoder in self.encoders}

    def single_token_words(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if all(encoder.is_single_token(word) for encoder in self.encoders)]

    @contextmanager
    def regional_prompts(
        self, regions: Sequence[Conditioning], masks: Tensor, adapted: Collection[str] = ()
    ) -> Iterator[None]:
        """As in `Base`; all prompts have one length. Pooled embeddings are the image's."""
        self._regional = RegionalPrompts(regions, masks, adapted)
        try:
            yield
        finally:
            self._regional = None

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        return self._vae_encode(images.to(self.device, self.vae.dtype) * 2 - 1).float()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        return (self._vae_decode(latents.to(self.device, self.vae.dtype)).float() / 2 + 0.5).clamp(0, 1)
