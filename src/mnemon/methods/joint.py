"""All photos together: what a model of the same size could learn if concepts did not come one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnemon.methods import parts
from mnemon.methods.base import Learner, Start
from mnemon.methods.low_rank import LoraMethod
from mnemon.methods.textual_inversion import TokenLearner


@dataclass(frozen=True)
class Joint(LoraMethod):
    """One low-rank change for all concepts, and a token for each, trained on all their photos mixed:

        W = W_0 + A B        A in R^{D1 x r} starts at zero, B in R^{r x D2} at random
        L = mean of L_diffusion over the photos of all concepts, with n times the steps of one concept for n concepts

    The same layers, rank and steps per concept as in `lora`, so the loss of sequential training can be told from the
    limits of the change. All photos have to be there at once. The change is stored with the first concept by name, the
    others store their tokens only; what it holds of one concept cannot be separated from the rest.
    """

    name: ClassVar[str] = "joint"
    trains: ClassVar[str] = "low-rank factors of the cross-attention keys and values for all concepts, and their tokens"
    stores: ClassVar[str] = "the factors once, and each token's vectors"
    order_free: ClassVar[bool] = True
    trains_jointly: ClassVar[bool] = True
    can_remove: ClassVar[bool] = False
    source: ClassVar[str] = "arXiv 2106.09685, on all photos together: the offline bound"

    def begin_together(self, starts: Sequence[Start]) -> list[Learner]:
        learners = [self.begin(starts[0])]
        for start in starts[1:]:
            token = parts.VectorToken(self.init_embeddings(start))
            learners.append(TokenLearner(start, token, self.token_lr))
        return learners
