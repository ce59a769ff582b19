"""The prompts a concept is trained on."""

import re

from mnemon.data.concept import Concept
from mnemon.errors import MnemonError
from mnemon.methods.base import Method

TEMPLATES: tuple[str, ...] = ("a photo of {}", "a picture of {}", "{}")
"""For photos without a caption."""


def training_prompts(concept: Concept, method: Method) -> tuple[list[int], list[str]]:
    """Photo numbers and prompts, in pairs: a caption where there is one, else every template.

    In a caption the token, with or without the class noun after it, is replaced by the method's name for the concept.
    """
    called = method.prompt_name(concept.name, concept.class_noun)
    rows, prompts = [], []
    for index, photo in enumerate(concept.photos):
        texts = [template.format(called) for template in TEMPLATES]
        if photo.caption is not None:
            texts = [rename(photo.caption, concept, called)]
        rows += [index] * len(texts)
        prompts += texts
    return rows, prompts


def rename(text: str, concept: Concept, called: str) -> str:
    """`text` with the concept's token (and its noun, if that follows) replaced by `called`."""
    class_noun = rf"(?:\s+{re.escape(concept.class_noun)}\b)?" if concept.class_noun else ""
    return re.sub(re.escape(concept.token) + class_noun, called.replace("\\", r"\\"), text)


def class_prompt(concept: Concept) -> str:
    """A prompt for images of the concept's class, for prior preservation.

    Raises:
        MnemonError: the concept has no class noun.
    """
    if not concept.class_noun:
        raise MnemonError(f"Prior preservation needs the class: give '{concept.name}' a class noun, like 'dog'.")
    return TEMPLATES[0].format(f"{'an' if concept.class_noun[0].lower() in 'aeiou' else 'a'} {concept.class_noun}")


def preview_prompt(concept: Concept, method: Method) -> str:
    return TEMPLATES[0].format(method.prompt_name(concept.name, concept.class_noun))
