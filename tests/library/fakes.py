"""A base that only has a name, methods that learn nothing, and concepts of a few numbers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import mnemon.methods
from mnemon.adapters import LowRank
from mnemon.methods.base import Method, TrainedConcept


class NamedBase:
    """As much of a base as a library looks at."""

    def __init__(self, name: str = "world", fingerprint: str = "f" * 64) -> None:
        self.name, self.family, self.fingerprint = name, "sd", fingerprint


@dataclass(frozen=True)
class Adding(Method):
    """A method whose concepts can be taken out again."""

    rank: int = 2
    steps: int = 1
    batch_size: int = 1
    name: ClassVar[str] = "adding"
    can_remove: ClassVar[bool] = True

    def prompt_name(self, name: str, class_noun: str | None) -> str:
        return f"<{name}> {class_noun}" if class_noun else f"<{name}>"

    def begin(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def compose(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Layering(Adding):
    """A method whose concepts stand on one another."""

    name: ClassVar[str] = "layering"
    can_remove: ClassVar[bool] = False


def concept(name: str, seed: int, class_noun: str | None = "dog") -> TrainedConcept:
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        f"blocks.{block}.attn2.to_{kind}": LowRank(
            torch.randn(8, 2, generator=generator), torch.randn(2, 6, generator=generator), scale=0.5
        )
        for block in range(2)
        for kind in "kv"
    }
    tokens = {"text_encoder": torch.randn(1, 6, generator=generator)}
    return TrainedConcept(name, class_noun, deltas, tokens, {"seed": seed})


def same(left: TrainedConcept, right: TrainedConcept) -> bool:
    """Equal bit for bit."""
    if (left.name, left.class_noun, dict(left.facts)) != (right.name, right.class_noun, dict(right.facts)):
        return False
    if list(left.deltas) != list(right.deltas) or left.tokens.keys() != right.tokens.keys():
        return False
    return all(torch.equal(left.deltas[k].matrix(), right.deltas[k].matrix()) for k in left.deltas) and all(
        torch.equal(left.tokens[k], right.tokens[k]) for k in left.tokens
    )


def register_methods() -> None:
    """What the fixture does in the tests' own process, for the processes they start."""
    mnemon.methods.METHODS.update({method.name: method for method in (Adding, Layering)})
