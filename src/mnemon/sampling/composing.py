"""A base with learned concepts in it, for as long as a `with` block lasts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mnemon.adapters import Delta, Folded, fold
from mnemon.methods.base import Learned, Method
from mnemon.models.base import Base, Tokens
from mnemon.sampling.drawing import OnStep, check_request, draw, shifted


class Composed:
    """Within the block the base knows exactly these concepts' tokens, and `draw` draws with the composed weights.

    A method that composes once for all prompts is folded in on entering, so the plain `draw(base, ...)` shows the
    concepts too. One that composes per prompt (`per_prompt`) is folded in for each distinct prompt, once, by this
    class's `draw`. On leaving, weights and tokens are what they were, bit for bit.
    """

    def __init__(self, base: Base, method: Method, learned: Sequence[Learned]) -> None:
        self.base = base
        self.method = method
        self.learned = list(learned)
        self._before: Mapping[str, Tokens] = {}
        self._folded = Folded([])

    def __enter__(self) -> "Composed":
        if not self.method.per_prompt:
            self._folded = self._fold(self.method.compose(self.learned))
        self._before = self.base.tokens
        try:
            self.base.set_tokens({one.name: one.tokens for one in self.learned})
        except BaseException:
            self._folded.unfold()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._folded.unfold()
        self.base.set_tokens(self._before)

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        guidance: float,
        steps: int,
        negative: str = "",
        batch: int = 16,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """As `mnemon.sampling.draw`, with the concepts in the base."""

        def some(rows: Sequence[int], on_step: OnStep | None) -> Tensor:
            texts, numbers = [prompts[row] for row in rows], [seeds[row] for row in rows]
            return draw(
                self.base,
                texts,
                seeds=numbers,
                guidance=guidance,
                steps=steps,
                negative=negative,
                batch=batch,
                on_step=on_step,
            )

        check_request(self.base, prompts, seeds, steps, batch)
        everything = range(len(prompts))
        if not self.method.per_prompt or not prompts:
            return some(everything, on_step)
        groups = {prompt: [row for row in everything if prompts[row] == prompt] for prompt in prompts}
        total = steps * sum(-(-len(rows) // batch) for rows in groups.values())
        pictures: dict[int, Tensor] = {}
        done = 0
        for prompt, rows in groups.items():
            with self._fold(self.method.compose(self.learned, prompt)):
                pictures.update(zip(rows, some(rows, shifted(on_step, done, total)), strict=True))
            done += steps * -(-len(rows) // batch)
        return torch.stack([pictures[row] for row in everything])

    def _fold(self, deltas: Mapping[str, Delta]) -> Folded:
        return fold(self.base.sites(), deltas)
