"""Strengths of concepts: `<rex:0.8>` in a prompt multiplies the concept's change of the weights by 0.8. Its token stays
as it was learned."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mnemon.errors import MnemonError
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models.weighted_prompt import said_strengths


def strengths_of_image(prompts: Iterable[str]) -> dict[str, float]:
    """The strengths of an image's prompts, those of its regions included.

    Raises:
        MnemonError: two of them give a concept different strengths.
    """
    found: dict[str, float] = {}
    for prompt in prompts:
        for name, strength in said_strengths(prompt).items():
            if found.setdefault(name, strength) != strength:
                raise MnemonError(
                    f"One image has <{name}> at the strengths {found[name]:g} and {strength:g}, but its concepts act "
                    "on the whole image: give it one strength."
                )
    return {name: strength for name, strength in found.items() if strength != 1}


def at_strengths(
    method: Method, learned: Sequence[TrainedConcept], strengths: Mapping[str, float]
) -> list[TrainedConcept]:
    """The concepts with their changes of the weights scaled.

    Raises:
        MnemonError: a concept has no change of the weights, or the method keeps no change of each concept.
    """
    if strengths and (reason := method.fixed_strength):
        name = next(iter(strengths))
        raise MnemonError(
            f"With the method '{method.name}' a concept has no strength of its own, since {reason}: write <{name}>, or "
            f"(<{name}>:0.8) for a weight of its token."
        )
    scaled = []
    for one in learned:
        strength = strengths.get(one.name, 1.0)
        if strength != 1 and not one.deltas:
            raise MnemonError(
                f"<{one.name}> is a token and no change of the weights, which a strength could scale: write "
                f"(<{one.name}>:{strength:g}) for a weight of its token."
            )
        deltas = {target: delta.scaled(strength) for target, delta in one.deltas.items()}
        scaled.append(one if strength == 1 else replace(one, deltas=deltas))
    return scaled
