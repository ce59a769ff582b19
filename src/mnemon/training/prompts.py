"""The prompts a concept is trained on."""

import re

from mnemon.data.concept import Concept
from mnemon.errors import MnemonError
from mnemon.methods.base import Method

TEMPLATES: tuple[str, ...] = ("a photo of {}", "a picture of {}", "{}")
"""For photos without a caption."""
IRREGULAR = {
    "mouse": ("mice",),
    "goose": ("geese",),
    "foot": ("feet",),
    "tooth": ("teeth",),
    "child": ("children",),
    "person": ("people",),
    "ox": ("oxen",),
}
"""Plurals that no rule gives."""


def training_prompts(concept: Concept, method: Method) -> tuple[list[int], list[str]]:
    """Photo numbers and prompts, in pairs: a caption where there is one, else every template.

    In a caption the token is replaced by the method's name for the concept, as `rename` says. A photo with repeats
    stands there as often.
    """
    called = method.prompt_name(concept.name, concept.class_noun)
    rows, prompts = [], []
    for index, photo in enumerate(concept.photos):
        texts = [template.format(called) for template in TEMPLATES]
        if photo.caption is not None:
            texts = [rename(photo.caption, concept, called)]
        rows += [index] * len(texts) * photo.repeats
        prompts += texts * photo.repeats
    return rows, prompts


def prompt_sources(concept: Concept, method: Method) -> dict[str, str]:
    """For the prompts that come from captions, where those were read."""
    called = method.prompt_name(concept.name, concept.class_noun)
    return {
        rename(photo.caption, concept, called): f"the caption in {photo.caption_source or photo.source}"
        for photo in concept.photos
        if photo.caption is not None
    }


def rename(text: str, concept: Concept, called: str) -> str:
    """`text` with the concept's token replaced by `called`.

    A noun that stands there already is not said twice: "<rex> Dog" and "two <rex> dogs" keep theirs, "the dog <rex>"
    and "<rex> the dog" become "<rex> dog". It goes where the method does not say it.
    """
    token, noun = re.escape(concept.token), concept.class_noun
    if not noun:
        return re.sub(token, lambda match: called, text)
    form = "|".join(map(_pattern, noun_forms(noun)))
    pattern = rf"(?:\b(?P<before>{form})\s+)?{token}(?:\s+(?:the\s+)?(?P<after>{form})(?!\w))?"
    with_noun = called.endswith(f" {noun}")

    def replaced(match: re.Match[str]) -> str:
        said = match["after"] or match["before"]
        return f"{called.removesuffix(noun)}{said}" if said and with_noun else called

    return re.sub(pattern, replaced, text, flags=re.IGNORECASE)


def noun_forms(noun: str) -> list[str]:
    """A noun and its plurals in English, the longest first: "dog" and "dogs"; "wolf", "wolves" and "wolfs"."""
    start, word = re.fullmatch(r"(.*?)(\w*)", noun, re.DOTALL).groups()  # type: ignore[union-attr]
    plurals = [f"{word}s", f"{word}es", *IRREGULAR.get(word.lower(), ())]
    for ending, plural in (("y", "ies"), ("fe", "ves"), ("f", "ves"), ("man", "men")):
        if word.lower().endswith(ending):
            plurals.append(word[: -len(ending)] + plural)
    return sorted({start + form for form in [word, *plurals]}, key=len, reverse=True)


def _pattern(form: str) -> str:
    return r"\s+".join(map(re.escape, form.split()))


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
