"""A base with learned concepts in it, for as long as a `with` block lasts."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta, Merged, merge
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base, Tokens
from mnemon.models.layers import every_layer
from mnemon.sampling.sampler import sample


class Composed:
    """Within the block the base knows exactly these concepts' tokens, and `sample` draws with the composed weights.

    A method that composes once for all prompts is folded in on entering, so the plain `sample(base, ...)` shows the
    concepts too. One that works per prompt (`per_prompt`) composes each distinct prompt once, in this class's `sample`.
    On leaving, weights and tokens are what they were, bit for bit.

    Args:
        fused: what `method.compose` gave for these concepts earlier, where that took a fusion.
    """

    def __init__(
        self, base: Base, method: Method, learned: Sequence[TrainedConcept], fused: Mapping[str, Delta] | None = None
    ) -> None:
        self.base = base
        self.method = method
        self.learned = list(learned)
        self._fused = fused
        self._before: Mapping[str, Tokens] = {}
        self._folded = Merged([])
        self._ways: dict[str, list[dict[str, Delta]]] = {}

    def __enter__(self) -> "Composed":
        self._before = self.base.tokens
        try:
            self.base.set_tokens(self.method.tokens(self.learned))
            if not self.method.per_prompt:
                fused = self._fused if self._fused is not None else self.method.compose(self.base, self.learned)
                self._folded = merge(every_layer(self.base), fused)
        except BaseException:
            self.base.set_tokens(self._before)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._folded.unmerge()
        self.base.set_tokens(self._before)

    def sample(self, prompts: Sequence[str], **options: Any) -> Tensor:
        """As `mnemon.sampling.sample`, with its options and the concepts in the base."""
        # Changes of many prompts are many weights: only those of prompts that are drawn again are kept.
        self._ways = {prompt: ways for prompt, ways in self._ways.items() if prompt in prompts}
        return sample(self.base, prompts, branches=self._branches if self.method.per_prompt else None, **options)

    def _branches(self, prompt: str) -> list[dict[str, Delta]]:
        """A prompt is composed once, however many images are drawn of it."""
        if prompt not in self._ways:
            self._ways[prompt] = self.method.branches(self.base, self.learned, prompt)
        return self._ways[prompt]
