"""A base with learned concepts in it, for as long as a `with` block lasts."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Unpack

from torch import Tensor

from mnemon.adapters import Delta, merge
from mnemon.library import Library, fused_changes
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base
from mnemon.models.layers import every_layer
from mnemon.sampling.prompt_adapters import no_adapters
from mnemon.sampling.sampler import DEFAULTS, SampleOptions, SamplingSettings, sample


class Composed:
    """Within the block prompts may name exactly these concepts, and `sample` uses the composed weights.

    A method that composes once for all prompts is merged into the base on entering, so plain `sample(base, ...)` shows
    the concepts too. One that works per prompt (`per_prompt`) composes each distinct prompt once, in this class's
    `sample`. On leaving, weights and tokens are restored bit for bit.

    Args:
        fused: the result of an earlier `method.compose` for these concepts, where that took a fusion.
    """

    def __init__(
        self, base: Base, method: Method, learned: Sequence[TrainedConcept], fused: Mapping[str, Delta] | None = None
    ) -> None:
        self.base = base
        self.method = method
        self.learned = list(learned)
        self._fused = fused
        self._undo = ExitStack()
        self._adapter_sets: dict[str, list[dict[str, Delta]]] = {}

    def __enter__(self) -> "Composed":
        with ExitStack() as undo:
            undo.enter_context(self.base.using_tokens(self.method.tokens(self.learned)))
            if not self.method.per_prompt:
                fused = self._fused if self._fused is not None else self.method.compose(self.base, self.learned)
                undo.enter_context(merge(every_layer(self.base), fused))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings = DEFAULTS,
        **options: Unpack[SampleOptions],
    ) -> Tensor:
        """As `mnemon.sampling.sample`, with the concepts in the base."""
        # Adapters of many prompts are many weights: only those of prompts that are sampled again are kept.
        self._adapter_sets = {prompt: sets for prompt, sets in self._adapter_sets.items() if prompt in prompts}
        adapter_sets = self._adapters_of if self.method.per_prompt else no_adapters
        return sample(self.base, prompts, seeds, settings, adapter_sets, **options)

    def _adapters_of(self, prompt: str) -> list[dict[str, Delta]]:
        """A prompt is composed once, for however many images."""
        if prompt not in self._adapter_sets:
            self._adapter_sets[prompt] = self.method.branches(self.base, self.learned, prompt)
        return self._adapter_sets[prompt]


def compose_library(library: Library, base: Base) -> Composed:
    """The base with a library's concepts in it; a fusion is read, or computed and kept."""
    fused = fused_changes(library, base) if library.method.fuses else None
    return Composed(base, library.method, library.learned(), fused)
