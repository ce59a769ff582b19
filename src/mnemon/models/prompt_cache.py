"""A cache of prompt embeddings, for text encoders of many gigabytes, which may then be offloaded to main memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mnemon.models.base import Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.tokens import PromptEncoder, concepts_in

LIMIT = 2**30
"""Bytes of prompt embeddings kept in main memory; the least recently used go first."""


class PromptCache:
    """Encodes prompts, each once: embeddings are cached by the prompt and its concepts' token embeddings.

    Not cached are prompts whose tokens are being trained, and all prompts while adapters are merged into the text
    encoders, which replaces their weight tensors.

    Args:
        encoders: the text encoders.
        encode: encodes distinct prompts.
        device: where conditionings are wanted.
    """

    def __init__(
        self, encoders: Sequence[PromptEncoder], encode: Callable[[Sequence[str]], Conditioning], device: torch.device
    ) -> None:
        self._encoders, self._encode, self._device = encoders, encode, device
        self._cached: OrderedDict[Any, tuple[list[Tensor], Conditioning]] = OrderedDict()
        weights = [weight for encoder in encoders for weight in encoder.model.parameters()]
        self._original = {weight: weight.data_ptr() for weight in weights}
        self._offloaded = False

    def __call__(self, prompts: Sequence[str], tokens: Mapping[str, Tokens]) -> Conditioning:
        """One row for each prompt; it may name the concepts of `tokens`."""
        vectors = {prompt: self._vectors_in(prompt, tokens) for prompt in prompts}
        merged = self._merged()
        keys = {prompt: None if merged else self._key(prompt, own) for prompt, own in vectors.items()}
        cached = {prompt: self._get(key) for prompt, key in keys.items()}
        rows = {prompt: row for prompt, row in cached.items() if row is not None}
        missing = [prompt for prompt in keys if prompt not in rows]
        if missing:
            training = torch.is_grad_enabled() and any(keys[prompt] is None for prompt in missing)
            with self._on_device(training), torch.set_grad_enabled(training):
                encoded = self._encode(missing)
            rows |= {prompt: encoded[index : index + 1] for index, prompt in enumerate(missing)}
        for prompt in missing:
            self._put(keys[prompt], vectors[prompt], rows[prompt])
        return Conditioning.cat([rows[prompt] for prompt in prompts])

    def offload(self, on: bool) -> None:
        """Move the text encoders to main memory, or back to the device."""
        self._offloaded = on
        self._move(torch.device("cpu") if on else self._device)

    @property
    def num_bytes(self) -> int:
        return sum(conditioning.num_bytes for _, conditioning in self._cached.values())

    def _vectors_in(self, prompt: str, tokens: Mapping[str, Tokens]) -> list[Tensor]:
        named = [tokens[name] for name in concepts_in(prompt) if name in tokens]
        return [vectors[encoder.name] for vectors in named for encoder in self._encoders]

    def _key(self, prompt: str, vectors: Sequence[Tensor]) -> Any:
        """What the prompt's embeddings depend on; None if some of it is being trained."""
        if any(vector.requires_grad for vector in vectors):
            return None
        versions = tuple((id(vector), vector._version) for vector in vectors)
        return prompt, versions, torch.is_autocast_enabled(self._device.type)

    def _get(self, key: Any) -> Conditioning | None:
        if key not in self._cached:
            return None
        self._cached.move_to_end(key)
        return self._cached[key][1].to(self._device)

    def _put(self, key: Any, vectors: list[Tensor], row: Conditioning) -> None:
        """Cache a row, and with it its tokens' vectors, so that no other tensor can take their identity."""
        if key is None:
            return
        # Cloned, since a row of a batch would keep the whole batch.
        self._cached[key] = vectors, row.detach().to(torch.device("cpu")).clone()
        while len(self._cached) > 1 and self.num_bytes > LIMIT:
            self._cached.popitem(last=False)

    def _merged(self) -> bool:
        """Whether a text encoder has other weight tensors than its own."""
        return any(weight.data_ptr() != pointer for weight, pointer in self._original.items())

    @contextmanager
    def _on_device(self, training: bool) -> Iterator[None]:
        """The text encoders on the device. While a token is trained, the backward pass still needs them there."""
        if self._offloaded:
            self._move(self._device)
        try:
            yield
        finally:
            if self._offloaded and not training:
                self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        """Move the encoders and note where their own weights are now; merged ones are still not their own."""
        original = [weight for weight, pointer in self._original.items() if weight.data_ptr() == pointer]
        for encoder in self._encoders:
            encoder.model.to(device)
        self._original |= {weight: weight.data_ptr() for weight in original}
