"""What the learners of most methods share: a trained token."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.methods.base import Learner, TrainedConcept
from mnemon.methods.parts import Token


class TokenLearner(Learner):
    """The token's vectors V*_t and nothing else; subclasses add changes of weights."""

    def __init__(self, name: str, class_noun: str | None, token: Token, token_lr: float) -> None:
        super().__init__()
        self.name, self.class_noun, self.token, self.token_lr = name, class_noun, token, token_lr

    def deltas(self) -> Mapping[str, Delta]:
        return {}

    def tokens(self) -> Mapping[str, Tensor]:
        return self.token()

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.token.parameters()), "lr": self.token.learning_rate(self.token_lr)}]

    def finish(self) -> TrainedConcept:
        return TrainedConcept(self.name, self.class_noun, {}, self.token.kept())
