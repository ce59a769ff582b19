"""How far new concepts move what the prompts of an earlier one produce, known before any image is sampled.

Keys and values are linear in the text features, so for concept j and a change D of the weights W

    m_j^2 = mean over target modules of  tr(D C_j D^T) / tr(W C_j W^T),      C_j = mean of e e^T

with e the text features of prompts with j: the squared size of what changes in its keys and values, relative to theirs.
Exact where all layers read the encoded text (U-Nets); where text passes through the blocks, of the features as they
were when j was learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemon.adapters import Delta
from mnemon.methods.base import Method, TrainedConcept
from mnemon.methods.text_grams import TEXT, Factors, layer_path, text_factors
from mnemon.models.base import Base

Changes = Mapping[str, Delta]
PROMPTS = ("a photo of {}", "{} in the snow", "a painting of {}", "two {} on a table", "{} at night", "{}")


def prompt_features(base: Base, method: Method, concept: TrainedConcept) -> Factors:
    """F with F F^T = C_j, by layer; the base need not know the concept's token yet."""
    name = method.prompt_name(concept.name, concept.class_noun)
    generator = torch.Generator(base.device).manual_seed(0)
    with base.using_tokens({**base.tokens, **method.tokens([concept])}):
        return text_factors(base, [prompt.format(name) for prompt in PROMPTS], generator)


@dataclass(frozen=True)
class State:
    """The concepts in the model, and their fused change if the method fuses."""

    method: Method
    concepts: Sequence[TrainedConcept]
    fused: Changes | None = None

    def changes(self, base: Base) -> Callable[[TrainedConcept], Changes]:
        """Concept -> the change of each target module's weight under which its prompts are sampled."""
        if self.fused is not None:
            return lambda concept: self.fused or {}
        if not self.method.per_prompt:
            summed = self._compose(base, None)
            return lambda concept: summed
        return lambda concept: self._compose(base, self.method.prompt_name(concept.name, concept.class_noun))

    def _compose(self, base: Base, prompt: str | None) -> Changes:
        with base.using_tokens(self.method.tokens(self.concepts)):
            return self.method.compose(base, self.concepts, prompt)


def movements(
    base: Base, before: State, after: State, features: Callable[[TrainedConcept], Factors]
) -> dict[str, float]:
    """m_j of every concept of `before`, by name; `features` gives what its prompts read (`prompt_features`)."""
    concepts = before.concepts
    if after.method.is_sum and not after.method.per_prompt:
        # W_t is a sum: what the new concepts add is the whole difference.
        known = {concept.name for concept in concepts}
        after = replace(after, concepts=[one for one in after.concepts if one.name not in known])
        before = replace(before, concepts=[])
    one, two = before.changes(base), after.changes(base)
    return {concept.name: movement(base, features(concept), one(concept), two(concept)) for concept in concepts}


@torch.no_grad()
def movement(base: Base, features: Factors, before: Changes, after: Changes) -> float:
    """m_j of the step from the changes `before` to those `after`; 0 where nothing of the concept's prompts moves."""
    shares = [
        _moved(read, before.get(target), after.get(target)) / _size(module, read)
        for target, module in base.target_modules().items()
        if (read := features[TEXT if TEXT in features else layer_path(target)]) is not None
    ]
    return float(torch.stack(shares).mean().sqrt())


def _moved(read: Tensor, before: Delta | None, after: Delta | None) -> Tensor:
    """tr(D F F^T D^T), D the difference of the two changes."""
    matrices = [one.matrix().to(read.device) for one in (after, before) if one is not None]
    if not matrices or before is after:
        return read.new_zeros(())
    if len(matrices) == 2:
        return ((matrices[0] - matrices[1]) @ read).square().sum()
    return (matrices[0] @ read).square().sum()


def _size(module: torch.nn.Module, read: Tensor) -> Tensor:
    """tr(W F F^T W^T), by the layer's own product, which quantised layers have too."""
    dtype = next(module.parameters()).dtype
    rows = read.T.to(dtype if dtype.is_floating_point else torch.float32)
    return (module(rows) - module(torch.zeros_like(rows[:1]))).float().square().sum()
