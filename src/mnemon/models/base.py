"""A base: a frozen text-to-image model behind the interface that all families share."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.conditioning import Conditioning
from mnemon.models.noise_schedule import NoiseSchedule

Tokens = Mapping[str, Tensor]
"""A concept's embeddings: text encoder name ("text_encoder", "text_encoder_2") -> (vectors, width), or layer-wise
(layers, vectors, width): one set for each of `Base.cross_attention_layers()`."""


class Base(ABC):
    """A frozen text-to-image model. Nothing above this class depends on the family.

    Attributes:
        name: what it was opened as ("world", a folder, a hub id).
        family: the registry name of the family ("sd", "sdxl").
        fingerprint: sha256 over the weights' files or tensors; a library refuses to open on another base.
        resolution: side of its images in pixels.
        distilled: whether guidance is distilled into the denoiser: it takes `Conditioning.guidance` as input, or has a
            fixed one, and no negative prompt can be given.
        static_text_features: whether every layer reads the text encoder's output, so that a layer can be given an
            encoding of its own and `token_features` says what it reads.
        denoiser: the U-Net or transformer. Its parameters never require gradients.
        schedule: the noise schedule, with timesteps, training targets and the scheduler for sampling.
        tokens: the concept tokens that prompts may name now, as `set_tokens` was given them.
    """

    name: str
    family: str
    fingerprint: str
    resolution: int
    distilled: bool = False
    static_text_features: bool = True
    denoiser: nn.Module
    schedule: NoiseSchedule
    tokens: Mapping[str, Tokens]

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def target_modules(self) -> dict[str, nn.Linear]:
        """The linear layers that project text to keys and values, by module path, in the denoiser's order."""

    def cross_attention_layers(self) -> list[str]:
        """The layers in which the image attends to text, by module path, in the denoiser's order. A target module's
        path begins with that of its layer; a layer-wise token has embeddings for each of them."""
        return list(dict.fromkeys(path.rpartition(".")[0] for path in self.target_modules()))

    @abstractmethod
    def set_tokens(self, tokens: Mapping[str, Tokens]) -> None:
        """Replace the concept tokens: concept name -> its embeddings. `<name>` in a prompt stands for them.

        Embeddings that require gradients stay in the graph, so a token can be trained through `encode_prompts`.
        """

    @contextmanager
    def using_tokens(self, tokens: Mapping[str, Tokens]) -> Iterator[None]:
        """Within the block prompts may name these concept tokens and no others; the previous ones come back after."""
        before = self.tokens
        try:
            self.set_tokens(tokens)
            yield
        finally:
            self.set_tokens(before)

    @abstractmethod
    def embedding_statistics(self) -> dict[str, tuple[int, float, float]]:
        """For each text encoder: width, and mean and standard deviation of the embedding table's entries."""

    @abstractmethod
    def word_embeddings(self, word: str) -> dict[str, Tensor]:
        """For each text encoder the mean embedding (width,) of the tokens of `word`."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, concept tokens included; differentiable in the embeddings given to `set_tokens`.

        Raises:
            MnemonError: a prompt names a concept `<x>` that is unknown; the message lists the known ones.
        """

    @abstractmethod
    def token_features(self, prompts: Sequence[str]) -> list[Tensor]:
        """For each prompt the encoder's features of its own tokens and EOS, without BOS and padding: (tokens, width) as
        the target modules read them, or (layers, tokens, width) if it names a layer-wise concept.

        Raises:
            MnemonError: as `encode_prompts`; or the family has no static text features.
        """

    @abstractmethod
    def single_token_words(self, words: Sequence[str]) -> list[str]:
        """Those of `words` that are a single token for every text encoder."""

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (batch, 3, side, side) in 0..1 to the denoiser's latents (mode of the posterior; scaled), fp32."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents to images (batch, 3, side, side) in 0..1."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's output for noisy latents: an estimate of `schedule.target`."""

    def classifier_free_guidance(self, uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598): from `uncond` through `cond` and beyond."""
        return uncond + scale * (cond - uncond)

    @abstractmethod
    def gradient_checkpointing(self, on: bool) -> None:
        """Trade time for memory in the denoiser's backward pass; the numbers stay the same."""

    def regional_prompts(
        self, regions: Sequence[Conditioning], masks: Tensor, adapted: Collection[str] = ()
    ) -> AbstractContextManager[object]:
        """Within the block `predict` conditions parts of the image on prompts of their own.

        Args:
            regions: for each region its conditioning, with as many rows as the image's.
            masks: (rows, 1 + regions, height, width) weights in 0..1 that sum to one: first that of the image's prompt.
            adapted: paths of the target modules with per-sample adapters, which count rows · (1 + regions) samples, the
                image's and the regions' of each row in turn.

        Raises:
            MnemonError: the family has no regional prompts.
        """
        raise MnemonError(f"Images of the family '{self.family}' are not drawn by regions: leave the regions out.")

    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""
