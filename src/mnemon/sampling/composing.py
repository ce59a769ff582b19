"""A base with learned concepts in it, for as long as a `with` block lasts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from mnemon.adapters import Delta, Merged, merge
from mnemon.errors import MnemonError
from mnemon.library import Library, fused_changes
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.base import Base
from mnemon.models.layers import every_layer
from mnemon.models.weighted_prompt import strengths_in
from mnemon.sampling.sampler import DEFAULTS, OnStep, SampleOptions, SamplingSettings, options_of, sample
from mnemon.sampling.strengths import at_strengths, strengths_of_image


class Composed:
    """Within the block prompts may name exactly these concepts, and `sample` uses the composed weights.

    A method that composes once for all prompts is merged into the base on entering, so plain `sample(base, ...)` shows
    the concepts too; prompts with strengths (`WeightedPrompt`) are sampled under a composition of their own. One that
    works per prompt (`per_prompt`) composes each distinct prompt once, in this class's `sample`. On leaving, weights
    and tokens are restored bit for bit.

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
        self._merged = Merged([])
        self._adapter_sets: dict[str, list[dict[str, Delta]]] = {}

    def __enter__(self) -> "Composed":
        with ExitStack() as undo:
            undo.enter_context(self.base.using_tokens(self.method.tokens(self.learned)))
            if not self.method.per_prompt:
                undo.callback(lambda: self._merged.unmerge())
                self._merge(self.learned)
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
        """As `mnemon.sampling.sample`, with the concepts in the base.

        Raises:
            MnemonError: as there; or a strength that the concept or the method cannot have, two strengths of a concept
                in one image, or one in the negative prompt where weights are those of each prompt.
        """
        if self.method.per_prompt:
            self._check_negative(settings)
            # Adapters of many prompts are many weights: only those of prompts that are sampled again are kept.
            self._adapter_sets = {prompt: sets for prompt, sets in self._adapter_sets.items() if prompt in prompts}
            return sample(self.base, prompts, seeds, settings, self._adapters_of, **options)
        regions = options.get("regions") or [()] * len(prompts)
        strengths = [
            strengths_of_image([prompt, settings.negative_prompt, *(region.prompt for region in own)])
            for prompt, own in zip(prompts, regions, strict=True)
        ]
        if not any(strengths):
            return sample(self.base, prompts, seeds, settings, **options)
        return self._sample_at(strengths, prompts, seeds, settings, options)

    def _sample_at(
        self,
        strengths: Sequence[Mapping[str, float]],
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings,
        options: SampleOptions,
    ) -> Tensor:
        """Images of each prompt at its own strengths: those of the same strengths together."""
        groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
        for row, own in enumerate(strengths):
            groups.setdefault(tuple(sorted(own.items())), []).append(row)
        composed = {key: at_strengths(self.method, self.learned, dict(key)) for key in groups}
        images: dict[int, Tensor] = {}
        batches = {key: math.ceil(len(rows) / settings.batch_size) for key, rows in groups.items()}
        on_step, before = options.get("on_step"), 0
        for key, rows in groups.items():
            with self._merging(composed[key]):
                chosen = [prompts[row] for row in rows]
                chosen_options = options_of(options, rows)
                if on_step is not None:
                    chosen_options["on_step"] = partial(_tell, on_step, before, batches[key], sum(batches.values()))
                sampled = sample(self.base, chosen, [seeds[row] for row in rows], settings, **chosen_options)
            before += batches[key]
            images |= zip(rows, sampled, strict=True)
        return torch.stack([images[row] for row in range(len(prompts))])

    @contextmanager
    def _merging(self, learned: Sequence[TrainedConcept]) -> Iterator[None]:
        """Within the block the base has these concepts instead."""
        self._merged.unmerge()
        try:
            self._merge(learned)
            yield
        finally:
            self._merged.unmerge()
            self._merge(self.learned)

    def _merge(self, learned: Sequence[TrainedConcept]) -> None:
        fused = self._fused if self._fused is not None else self.method.merged_changes(self.base, learned)
        self._merged = merge(every_layer(self.base), fused)

    def _adapters_of(self, prompt: str) -> list[dict[str, Delta]]:
        """A prompt is composed once, for however many images."""
        if prompt not in self._adapter_sets:
            learned = at_strengths(self.method, self.learned, strengths_in(prompt))
            self._adapter_sets[prompt] = self.method.branches(self.base, learned, str(prompt))
        return self._adapter_sets[prompt]

    def _check_negative(self, settings: SamplingSettings) -> None:
        if strengths := strengths_in(settings.negative_prompt):
            name = next(iter(strengths))
            raise MnemonError(
                f"With the method '{self.method.name}' the weights are those of each prompt, for its negative prompt "
                f"too: give <{name}> its strength in the prompt, or a weight in the negative one, (<{name}>:0.8)."
            )


def _tell(on_step: OnStep, before: int, own: int, batches: int, done: int, of: int) -> None:
    """Tell of `done` steps of `own` batches' `of`, as those of all `batches`, of which some came before."""
    each = of // own
    on_step(before * each + done, batches * each)


def compose_library(library: Library, base: Base) -> Composed:
    """The base with a library's concepts in it; a fusion is read, or computed and kept."""
    fused = fused_changes(library, base) if library.method.fuses else None
    return Composed(base, library.method, library.learned(stored=library.method.is_sum), fused)
