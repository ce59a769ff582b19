"""Prompts are checked before anything is generated or trained."""

from collections.abc import Iterable, Mapping, Sequence

from mnemon.data.concept import Concept
from mnemon.errors import MnemonError
from mnemon.methods.base import Method, Start, TrainedConcept
from mnemon.models.base import Base, Tokens
from mnemon.seeding import seeded_generator
from mnemon.training.prompts import class_prompt, prompt_sources, training_prompts


def check_training_prompts(
    base: Base,
    method: Method,
    groups: Sequence[Sequence[Concept]],
    earlier: Sequence[TrainedConcept] = (),
    with_class_images: bool = False,
) -> None:
    """Tokenize every prompt that the concepts of all groups will be trained on.

    Args:
        groups: concepts that are trained in the same steps; a prompt may name those of its own group and before.
        earlier: concepts the model has already.
        with_class_images: whether class images are to be generated.

    Raises:
        MnemonError: a prompt is too long or names an unknown concept, and where it was read; or a concept has no class
            noun for class images.
    """
    tokens = dict(method.tokens(earlier))
    for group in groups:
        tokens |= {concept.name: _first_tokens(base, method, concept) for concept in group}
        with base.using_tokens({name: _on(base, own) for name, own in tokens.items()}):
            for concept in group:
                check_prompts(base, training_prompts(concept, method)[1], prompt_sources(concept, method))
                if with_class_images:
                    check_prompts(base, [class_prompt(concept)], {})


def check_prompts(base: Base, prompts: Iterable[str], sources: Mapping[str, str]) -> None:
    """Tokenize prompts once, with the tokens that the base has.

    Args:
        sources: where a prompt was read, for errors.

    Raises:
        MnemonError: one is too long or names an unknown concept; the error says where it was read.
    """
    for prompt in dict.fromkeys(prompts):
        try:
            base.check_prompt(prompt)
        except MnemonError as error:
            where = sources.get(prompt)
            raise MnemonError(f"{where[0].upper()}{where[1:]}: {error}" if where else str(error)) from error


def _first_tokens(base: Base, method: Method, concept: Concept) -> Tokens:
    """As many vectors as the concept will have: a learner's, before its first step."""
    generator = seeded_generator(0, concept.name, "start", base.device)
    learner = method.begin(Start(concept.name, concept.class_noun, base, (), generator))
    return {encoder: vectors.detach() for encoder, vectors in learner.tokens().items()}


def _on(base: Base, tokens: Tokens) -> Tokens:
    return {encoder: vectors.to(base.device) for encoder, vectors in tokens.items()}
