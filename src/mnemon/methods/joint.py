"""All photos together: what a model of the same size could know if concepts did not come one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mnemon.methods import parts
from mnemon.methods.base import Learner, TrainedConcept
from mnemon.methods.lora import Lora
from mnemon.methods.token_learner import TokenLearner
from mnemon.models.base import Base


@dataclass(frozen=True)
class Joint(Lora):
    """One low-rank change for all concepts, and a token for each, trained on all their photos mixed:

        W = W_0 + A B        A in R^{D1 x r} starts at zero, B in R^{r x D2} at random
        L = mean of L_diffusion over the photos of all concepts, with n times the steps of one concept for n concepts

    The same layers, rank and steps a concept as in `lora`, so what sequential learning loses can be told from what the
    change cannot hold. Every photo has to be there at once. The change is kept with the first concept by name, the
    others keep their tokens only; what it holds of one concept cannot be told from the rest.
    """

    name: ClassVar[str] = "joint"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values for all concepts, and their tokens"
    stores: ClassVar[str] = "the factors once, and each token's vectors"
    order_free: ClassVar[bool] = True
    at_once: ClassVar[bool] = True
    can_remove: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2106.09685, on all photos together: the offline bound"

    def begin_together(
        self,
        names: Sequence[tuple[str, str | None]],
        base: Base,
        earlier: Sequence[TrainedConcept],
        generators: Sequence[torch.Generator],
    ) -> list[Learner]:
        (first, *others), (start, *starts) = names, generators
        learners: list[Learner] = [self.begin(*first, base, earlier, start)]
        for (name, class_noun), generator in zip(others, starts, strict=True):
            token = parts.VectorToken(parts.start_vectors(base, self.vectors, generator))
            learners.append(TokenLearner(name, class_noun, token, self.token_lr))
        return learners
