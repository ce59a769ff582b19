"""Prompts encoded once and remembered, for text encoders of many gigabytes, which may then leave the device."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.models.base import Tokens
from mnemon.models.conditioning import Conditioning
from mnemon.models.tokens import PromptEncoder, concepts_in

LIMIT = 2**30
"""Bytes of encoded prompts kept in main memory; the ones not asked for longest go first."""


class RememberedPrompts:
    """Encoded prompts by their words and their concepts' vectors.

    Not remembered are prompts whose tokens are being trained, and whatever is said while changes are folded into the
    text encoders or attached to them.

    Args:
        encoders: the text encoders.
        encode: encodes distinct prompts.
        device: where conditions are wanted.
    """

    def __init__(
        self, encoders: Sequence[PromptEncoder], encode: Callable[[Sequence[str]], Conditioning], device: torch.device
    ) -> None:
        self._encoders, self._encode, self._device = encoders, encode, device
        self._kept: OrderedDict[Any, tuple[list[Tensor], Conditioning]] = OrderedDict()
        self._places = {weight: weight.data_ptr() for weight in self._weights()}
        self._offloaded = False

    def __call__(self, prompts: Sequence[str], tokens: Mapping[str, Tokens]) -> Conditioning:
        """One row for each prompt, with the concepts `tokens` known."""
        vectors = {prompt: self._vectors_in(prompt, tokens) for prompt in prompts}
        altered = self._altered()
        keys = {prompt: None if altered else self._key(prompt, own) for prompt, own in vectors.items()}
        recalled = {prompt: self._recall(key) for prompt, key in keys.items()}
        rows = {prompt: row for prompt, row in recalled.items() if row is not None}
        missing = [prompt for prompt in keys if prompt not in rows]
        if missing:
            learning = torch.is_grad_enabled() and any(keys[prompt] is None for prompt in missing)
            with self._awake(learning), torch.set_grad_enabled(learning):
                encoded = self._encode(missing)
            rows |= {prompt: encoded[index : index + 1] for index, prompt in enumerate(missing)}
        for prompt in missing:
            self._keep(keys[prompt], vectors[prompt], rows[prompt])
        return Conditioning.cat([rows[prompt] for prompt in prompts])

    def offload(self, on: bool) -> None:
        """Let the text encoders rest in main memory, or bring them back to the device."""
        self._offloaded = on
        self._move(torch.device("cpu") if on else self._device)

    def _vectors_in(self, prompt: str, tokens: Mapping[str, Tokens]) -> list[Tensor]:
        known = [tokens[name] for name in concepts_in(prompt) if name in tokens]
        return [vectors[encoder.name] for vectors in known for encoder in self._encoders]

    def _key(self, prompt: str, vectors: Sequence[Tensor]) -> Any:
        """What the prompt's encoding depends on; None if something of it is being trained."""
        if any(vector.requires_grad for vector in vectors):
            return None
        held = tuple((id(vector), vector._version) for vector in vectors)
        return prompt, held, torch.is_autocast_enabled(self._device.type)

    def _recall(self, key: Any) -> Conditioning | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][1].to(self._device)

    def _keep(self, key: Any, vectors: list[Tensor], row: Conditioning) -> None:
        """Keep a row, and with it its tokens' vectors, so that no other tensor can take their identity."""
        if key is None:
            return
        # Cloned, since a row of a batch would keep the whole batch.
        own = row.detach().to(torch.device("cpu")).clone()
        self._kept[key] = vectors, own
        while len(self._kept) > 1 and sum(condition.num_bytes for _, condition in self._kept.values()) > LIMIT:
            self._kept.popitem(last=False)

    def _weights(self) -> Iterator[Tensor]:
        for encoder in self._encoders:
            yield from encoder.model.parameters()

    def _altered(self) -> bool:
        """Whether a text encoder has other weights than its own, or hooks on layers that have weights."""
        if any(weight.data_ptr() != place for weight, place in self._places.items()):
            return True
        modules = (module for encoder in self._encoders for module in encoder.model.modules())
        return any(module._forward_hooks for module in modules if isinstance(module, nn.Linear | nn.Conv2d))

    @contextmanager
    def _awake(self, learning: bool) -> Iterator[None]:
        """The text encoders on the device. While a token learns, the backward pass still needs them there."""
        if self._offloaded:
            self._move(self._device)
        try:
            yield
        finally:
            if self._offloaded and not learning:
                self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        """Move the encoders, and know their own weights again at the new place; folded ones are still not their own."""
        own = [weight for weight, place in self._places.items() if weight.data_ptr() == place]
        for encoder in self._encoders:
            encoder.model.to(device)
        self._places |= {weight: weight.data_ptr() for weight in own}
