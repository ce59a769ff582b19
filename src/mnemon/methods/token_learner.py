"""What the learners of most methods share: a trained token."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.methods.base import Learned, Learner
from mnemon.methods.parts import Token


class TokenLearner(Learner):
    """The token's vectors V*_t and nothing else; subclasses add changes of weights."""

    def __init__(self, name: str, noun: str | None, token: Token, token_rate: float) -> None:
        super().__init__()
        self.name, self.noun, self.token, self.token_rate = name, noun, token, token_rate

    def deltas(self) -> Mapping[str, Delta]:
        return {}

    def tokens(self) -> Mapping[str, Tensor]:
        return self.token()

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.token.parameters()), "lr": self.token.rate(self.token_rate)}]

    def finish(self) -> Learned:
        return Learned(self.name, self.noun, {}, self.token.kept())
