"""A base: a frozen text-to-image model behind the interface that all families share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.checkpointing import checkpoint_layers, checkpoint_with_hooks
from mnemon.models.conditioning import Conditioning
from mnemon.models.configs import check_autoencoder
from mnemon.models.fingerprint import fingerprint_of_modules
from mnemon.models.latents import in_slices, latent_shift_and_scale
from mnemon.models.profiles import Profile, profile_of
from mnemon.models.regional_cross_attention import RegionalPrompts
from mnemon.models.tokens import PromptEncoder

if TYPE_CHECKING:
    from mnemon.models.noise_schedule import NoiseSchedule  # imports diffusers

Tokens = Mapping[str, Tensor]
"""A concept's embeddings: text encoder name ("text_encoder", "text_encoder_2") -> (vectors, width), or layer-wise
(layers, vectors, width): one set for each of `Base.cross_attention_layers()`."""


class Base(ABC):
    """A frozen diffusers pipeline. Nothing above this class depends on the family.

    Args:
        pipeline: its modules are frozen in place and used as they are; put it on its device beforehand.
        name: what it was opened as ("world", a folder, a hub id).
        fingerprint: sha256 of the weights' files; without it the tensors are hashed. A library refuses to open on a
            base with another.

    Attributes:
        family: the registry name of the family ("sd", "sdxl").
        resolution: side of its images in pixels.
        distilled: whether guidance is distilled into the denoiser: it takes `Conditioning.guidance` as input, or has a
            fixed one, and no negative prompt can be given.
        static_text_features: whether every layer reads the text encoder's output, so that a layer can be given an
            encoding of its own and `token_features` says what it reads.
        denoiser: the U-Net or transformer. Its parameters never require gradients.
        schedule: the noise schedule, with timesteps, training targets and the scheduler for sampling.
        encoders: the text encoders, in the order of the pipeline.
        tokens: the concept tokens that prompts may name now, as `set_tokens` was given them.
    """

    pipeline_class: ClassVar[Any]
    """The diffusers pipeline of the family."""
    components: ClassVar[tuple[str, ...]]
    """The pipeline's parts that have weights, the denoiser first."""
    unused: ClassVar[dict[str, Any]] = {}
    """Parts of the pipeline that are not loaded, and switches for it."""
    autoencoder: ClassVar[str] = "AutoencoderKL"
    """The diffusers class of its autoencoder."""
    target_pattern: ClassVar[str]
    """A pattern for the paths of the target modules: linear layers that project text to keys and values. Where text and
    image share a layer, as in single-stream blocks, it projects the image too."""
    packing: ClassVar[int] = 1
    """Latent pixels in one token of the denoiser, where the pipeline packs them; else 1."""
    family: str
    resolution: int
    distilled: bool = False
    static_text_features: bool = True
    tokens: Mapping[str, Tokens]
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
        self._refuse_unlike()

    @abstractmethod
    def _encoders(self) -> list[PromptEncoder]: ...

    @abstractmethod
    def _noise_schedule(self) -> "NoiseSchedule": ...

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, concept tokens included; differentiable in the embeddings given to `set_tokens`.

        Each distinct prompt is encoded once. Tokens beyond the encoder's length are ignored with a warning.

        Raises:
            MnemonError: a prompt names a concept `<x>` that is unknown; the message lists the known ones. Or one beyond
                the encoder's length.
        """

    @abstractmethod
    def token_features(self, prompts: Sequence[str]) -> list[Tensor]:
        """For each prompt the encoder's features of its own tokens and EOS, without BOS and padding: (tokens, width) as
        the target modules read them, or (layers, tokens, width) if it names a layer-wise concept.

        Raises:
            MnemonError: as `encode_prompts`; or the family has no static text features.
        """

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's output for noisy latents, an estimate of `schedule.target`, in the dtype of `noisy`, which is
        cast to the denoiser's on the way."""

    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""

    @property
    def fixed_first_token(self) -> bool:
        """Whether the first position that the target modules read is the same token for every prompt (BOS)."""
        return self.encoders[0].fixed_first_token

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(weight.dtype for weight in self.denoiser.parameters() if weight.is_floating_point())

    @cached_property
    def profile(self) -> Profile:
        """What it is trained and sampled with by default."""
        return profile_of(self)

    def scheduler_config(self) -> Mapping[str, Any]:
        """The config of the scheduler that the checkpoint came with, with its class as `_class_name`."""
        scheduler = self._pipeline.scheduler
        return {**scheduler.config, "_class_name": type(scheduler).__name__}

    def pipeline(self) -> Any:
        """A plain diffusers pipeline on the same modules: what is merged into the base now is in its images too.

        It shares memory with the base. Concept tokens are not in it.
        """
        switches = {key: value for key, value in self.unused.items() if value is not None}
        return type(self._pipeline)(**self._pipeline.components, **switches)

    def target_modules(self) -> dict[str, nn.Linear]:
        """The linear layers that project text to keys and values, and in single-stream blocks the image too, by module
        path, in the denoiser's order."""
        return dict(self._target_modules)

    @cached_property
    def _target_modules(self) -> dict[str, nn.Linear]:
        """Looked for once: they stay the same modules, whatever is merged or attached."""
        return {
            path: module
            for path, module in self.denoiser.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(self.target_pattern, path)
        }

    def cross_attention_layers(self) -> list[str]:
        """The layers in which the image attends to text, by module path, in the denoiser's order. A target module's
        path begins with that of its layer; a layer-wise token has embeddings for each of them."""
        return list(dict.fromkeys(path.rpartition(".")[0] for path in self.target_modules()))

    def gradient_checkpointing(self, on: bool) -> None:
        """Trade time for memory in the backward pass of denoiser and text encoders; the numbers stay the same."""
        for encoder in self.encoders:
            checkpoint_layers(encoder.model, on)
        denoiser: Any = self.denoiser
        if on:
            denoiser.enable_gradient_checkpointing(checkpoint_with_hooks)
        else:
            denoiser.disable_gradient_checkpointing()

    def set_tokens(self, tokens: Mapping[str, Tokens]) -> None:
        """Replace the concept tokens: concept name -> its embeddings. `<name>` in a prompt stands for them.

        Embeddings that require gradients stay in the graph, so a token can be trained through `encode_prompts`.

        Raises:
            MnemonError: embeddings of a text encoder are missing or of another width.
        """
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

    def check_prompt(self, prompt: str) -> None:
        """Raises:
        MnemonError: as `encode_prompts`, of which this does the part that can fail.
        """
        for encoder in self.encoders:
            encoder.num_tokens(prompt)

    @contextmanager
    def using_tokens(self, tokens: Mapping[str, Tokens]) -> Iterator[None]:
        """Within the block prompts may name these concept tokens and no others; the previous ones come back after."""
        before = self.tokens
        try:
            self.set_tokens(tokens)
            yield
        finally:
            self.set_tokens(before)

    def embedding_statistics(self) -> dict[str, tuple[int, float, float]]:
        """For each text encoder: width, and mean and standard deviation of the embedding table's entries."""
        return {encoder.name: encoder.statistics() for encoder in self.encoders}

    def word_embeddings(self, word: str) -> dict[str, Tensor]:
        """For each text encoder the mean embedding (width,) of the tokens of `word`."""
        return {name: vectors.mean(dim=0).to(self.device) for name, vectors in self.phrase_vectors(word).items()}

    def phrase_vectors(self, phrase: str) -> dict[str, Tensor]:
        """For each text encoder the embeddings (tokens, width) of the phrase's own tokens, in fp32: a concept token
        with these vectors says what the phrase says, in any prompt.

        Raises:
            MnemonError: the phrase is empty.
        """
        return {encoder.name: encoder.phrase_vectors(phrase) for encoder in self.encoders}

    def single_token_words(self, words: Sequence[str]) -> list[str]:
        """Those of `words` that are a single token for every text encoder."""
        return [word for word in words if all(encoder.is_single_token(word) for encoder in self.encoders)]

    @contextmanager
    def regional_prompts(
        self, regions: Sequence[Conditioning], masks: Tensor, adapted: Collection[str] = ()
    ) -> Iterator[None]:
        """Within the block `predict` conditions parts of the image on prompts of their own, as `RegionalPrompts` says.
        Pooled embeddings are the image's."""
        self._regional = RegionalPrompts(regions, masks, adapted)
        try:
            yield
        finally:
            self._regional = None

    def classifier_free_guidance(self, uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598): from `uncond` through `cond` and beyond."""
        return uncond + scale * (cond - uncond)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (batch, 3, side, side) in 0..1 to the denoiser's latents (mode of the posterior; scaled), fp32."""
        parts = in_slices(images.to(self.device, self.vae.dtype) * 2 - 1, images.shape[2] * images.shape[3])
        return torch.cat([self._vae_encode(part) for part in parts]).float()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents to images (batch, 3, side, side) in 0..1."""
        parts = in_slices(latents.to(self.device, self.vae.dtype), self.resolution**2)
        return torch.cat([(self._vae_decode(part).float() / 2 + 0.5).clamp(0, 1) for part in parts])

    def _vae_encode(self, images: Tensor) -> Tensor:
        """Images in -1..1 to the latents the denoiser works on."""
        shift, scale = latent_shift_and_scale(self.vae)
        return (self.vae.encode(images).latent_dist.mode() - shift) * scale

    def _vae_decode(self, latents: Tensor) -> Tensor:
        """Latents back to images in about -1..1."""
        shift, scale = latent_shift_and_scale(self.vae)
        return self.vae.decode(latents / scale + shift).sample

    def _latent_channels(self) -> int:
        return self.vae.config.latent_channels

    def _refuse_unlike(self) -> None:
        check_autoencoder(self.vae, self.name, self.autoencoder)
        denoiser: Any = self.denoiser
        taken, given = denoiser.config.in_channels, self._latent_channels() * self.packing
        if taken != given:
            kind = "U-Net" if self.components[0] == "unet" else "transformer"
            raise MnemonError(
                f"The {kind} of '{self.name}' takes {taken} channels where its autoencoder gives {given}: it edits "
                "images. Choose a text-to-image checkpoint."
            )

    def _encoder(self, name: str, kind: Callable[..., PromptEncoder] = PromptEncoder, **options: Any) -> PromptEncoder:
        """One of the pipeline's text encoders with its tokenizer; `options` are those of its kind."""
        tokenizer = getattr(self._pipeline, name.replace("text_encoder", "tokenizer"))
        return kind(name, tokenizer, getattr(self._pipeline, name), **options)
