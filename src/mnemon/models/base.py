"""A base: a frozen text-to-image model, seen through what every family can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemon.errors import MnemonError

Tokens = Mapping[str, Tensor]
"""A concept's vectors: text encoder name ("text_encoder", "text_encoder_2") -> (vectors, width), or layer-wise
(layers, vectors, width): a set for each of `Base.layers()`, which hears the prompt with its own."""


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser hears.

    Attributes:
        hidden: (batch, length, width), or (batch, layers, length, width) where each layer hears its own.
        pooled: (batch, width), for families that hear the prompt as a whole too.
        mask: (batch, length), false where a row is only filled up; None where all of it is heard.
        guidance: (batch,), for denoisers that are told it (`Base.distilled`).
    """

    hidden: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    guidance: Tensor | None = None

    def __getitem__(self, rows: slice | Tensor) -> "Conditioning":
        return self._each(lambda part: part[rows])

    def to(self, where: torch.device | torch.dtype) -> "Conditioning":
        """On another device, or in another floating dtype."""
        return self._each(lambda part: part.to(where) if _fits(part, where) else part)

    def detach(self) -> "Conditioning":
        return self._each(Tensor.detach)

    def clone(self) -> "Conditioning":
        return self._each(Tensor.clone)

    def guided(self, guidance: float) -> "Conditioning":
        """The same, told how far to go beyond the prediction without a prompt."""
        return replace(self, guidance=self.hidden.new_full((len(self.hidden),), guidance, dtype=torch.float32))

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.numel() * part.element_size() for part in self._parts().values())

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """The rows of all parts, filled up to the longest; if some are layer-wise, the others are told to every layer
        alike."""
        lengths = {part.hidden.shape[-2] for part in parts}
        masked = len(lengths) > 1 or any(part.mask is not None for part in parts)
        filled = [part._filled(max(lengths)) for part in parts] if masked else parts
        layers = max((part.hidden.shape[1] for part in parts if part.hidden.ndim == 4), default=0)
        hidden = [part.hidden for part in filled]
        if layers:
            hidden = [h if h.ndim == 4 else h[:, None].expand(-1, layers, -1, -1) for h in hidden]
        others = {
            name: torch.cat([getattr(part, name) for part in filled])
            for name in ("pooled", "mask", "guidance")
            if all(getattr(part, name) is not None for part in filled)
        }
        return Conditioning(torch.cat(hidden), **others)

    def _filled(self, length: int) -> "Conditioning":
        rows, own = self.hidden.shape[0], self.hidden.shape[-2]
        mask = torch.ones(rows, own, dtype=torch.bool, device=self.hidden.device) if self.mask is None else self.mask
        hidden = functional.pad(self.hidden, (0, 0, 0, length - own))
        return replace(self, hidden=hidden, mask=functional.pad(mask, (0, length - own)))

    def _parts(self) -> dict[str, Tensor]:
        return {name: part for name, part in vars(self).items() if part is not None}

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        return replace(self, **{name: change(part) for name, part in self._parts().items()})


def _fits(part: Tensor, where: torch.device | torch.dtype) -> bool:
    """Masks stay what they are in whatever dtype is asked for."""
    return isinstance(where, torch.device) or part.is_floating_point()


class Base(ABC):
    """A frozen model. Everything above this class is blind to the family.

    Attributes:
        name: what the person asked for ("world", a folder, a hub id).
        family: the registry name of the family ("sd", "sdxl").
        fingerprint: sha256 over the weights' files or tensors; a library refuses to open on another base.
        resolution: side of its images in pixels.
        distilled: whether guidance is in the denoiser itself: it is told `Conditioning.guidance`, or keeps to its own, and
            no negative prompt is heard.
        static_text_features: whether every layer reads the words as they were encoded, so that a layer can be told words of its
            own, and `heard` says what it reads.
        denoiser: the U-Net or transformer. Its parameters never require gradients.
        tokens: the concept tokens known now, as `set_tokens` was given them.
    """

    name: str
    family: str
    fingerprint: str
    resolution: int
    distilled: bool = False
    static_text_features: bool = True
    denoiser: nn.Module
    tokens: Mapping[str, Tokens]

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def target_modules(self) -> dict[str, nn.Linear]:
        """The linear layers that turn text into keys and values, by module path, in the denoiser's order."""

    @abstractmethod
    def layers(self) -> list[str]:
        """The layers in which images listen to text, by module path, in the denoiser's order. A target module belongs to the
        layer whose path it begins with; a layer-wise token has vectors of its own for each of them."""

    @abstractmethod
    def set_tokens(self, tokens: Mapping[str, Tokens]) -> None:
        """Replace the known concept tokens: concept name -> its vectors. `<name>` in a prompt stands for them.

        Vectors that require gradients stay in the graph, so a token can be trained through `encode_prompts`.
        """

    @abstractmethod
    def embedding_statistics(self) -> dict[str, tuple[int, float, float]]:
        """For each text encoder: width, and mean and standard deviation of the embedding table's entries."""

    @abstractmethod
    def word_embeddings(self, word: str) -> dict[str, Tensor]:
        """For each text encoder the mean embedding (width,) of the tokens of `word`."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, concept tokens included; differentiable in the vectors given to `set_tokens`.

        Raises:
            MnemonError: a prompt names a concept `<x>` that is not known, listing those that are.
        """

    @abstractmethod
    def heard(self, prompts: Sequence[str]) -> list[Tensor]:
        """For each prompt what its own words and its end mark become, without start mark and padding: (words, width) as
        the target modules read it, or (layers, words, width) where a concept's token is layer-wise.

        Raises:
            MnemonError: as `encode_prompts`; the target modules read no such words, since the text changes from layer to layer.
        """

    @abstractmethod
    def single_token_words(self, words: Sequence[str]) -> list[str]:
        """Those of `words` that are one token to every text encoder: the words the base was made for."""

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (batch, 3, side, side) in 0..1 to the latents the denoiser works on (the mode; scaled)."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents back to images (batch, 3, side, side) in 0..1."""

    @abstractmethod
    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Training timesteps (batch,), uniform over the schedule: what `sampling_scheduler` calls timesteps."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should give: the noise, the velocity or the flow, as the scheduler's config says."""

    @abstractmethod
    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio (batch,) at the timesteps."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor: ...

    def guided(self, without: Tensor, along: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598): from the prediction without the prompt beyond the
        one along it."""
        return without + guidance * (along - without)

    @abstractmethod
    def gradient_checkpointing(self, on: bool) -> None:
        """Trade time for memory in the denoiser's backward pass; the numbers stay the same."""

    def regional_prompts(self, inside: Sequence[Conditioning], places: Tensor) -> AbstractContextManager[object]:
        """Within the block `predict` hears other texts beside its condition, each in its own places of the image.

        Args:
            inside: for each region what it hears, in as many rows as the condition will have.
            places: (rows, 1 + regions, height, width) weights in 0..1 that sum to one: how much of a place hears the
                condition, and how much each region.

        Raises:
            MnemonError: images of this family are not drawn by regions.
        """
        raise MnemonError(f"Images of the family '{self.family}' are not drawn by regions: leave the regions out.")

    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""

    @abstractmethod
    def sampling_scheduler(self) -> object:
        """A fresh diffusers scheduler for drawing images (DDIM for the U-Nets, from the model's own config)."""
