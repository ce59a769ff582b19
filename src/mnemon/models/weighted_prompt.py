"""A prompt whose words have weights and whose concepts have strengths."""

from typing import Any

Weights = tuple[tuple[int, int, float], ...]
"""(start, end, weight) of spans of characters, in order; the rest has the weight 1."""
Strengths = tuple[tuple[str, float], ...]
"""(concept, strength), by name, as the prompt says them; others have the strength 1."""


class WeightedPrompt(str):
    """As a string it is the text without marks, `<name>` for concepts. Equal are two with the same text, weights and
    strengths; none is equal to a plain string."""

    weights: Weights
    strengths: Strengths

    def __new__(cls, text: str, weights: Weights = (), strengths: Strengths = ()) -> "WeightedPrompt":
        made = super().__new__(cls, text)
        made.weights, made.strengths = weights, strengths
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightedPrompt) and self._all() == other._all()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._all())

    def _all(self) -> tuple[Any, ...]:
        return str(self), self.weights, self.strengths


def weight_at(prompt: str, place: int) -> float:
    """The weight of the character at `place`; 1 outside of the prompt and in a plain one."""
    weights = prompt.weights if isinstance(prompt, WeightedPrompt) else ()
    return next((weight for start, end, weight in weights if start <= place < end), 1.0)


def strengths_in(prompt: str) -> dict[str, float]:
    """The concepts of the prompt whose strength is not 1."""
    return {name: one for name, one in said_strengths(prompt).items() if one != 1}


def said_strengths(prompt: str) -> dict[str, float]:
    """The concepts that the prompt gives a strength, be it 1."""
    return dict(prompt.strengths) if isinstance(prompt, WeightedPrompt) else {}
