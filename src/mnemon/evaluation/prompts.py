"""The fixed prompts that concepts and the base are scored on, and the same prompts in words CLIP knows."""

from dataclasses import dataclass

import numpy as np

from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.captions import OPENINGS, describe, with_article
from mnemon.world.looks import palette_look


@dataclass(frozen=True)
class PromptSet:
    """`templates` have one `{}` for the concept; `general` are prompts without any concept."""

    templates: tuple[str, ...]
    general: tuple[str, ...]

    def of_concept(self, called: str) -> list[str]:
        """The prompts of a concept that is called "<rex> dog" in prompts."""
        return [template.format(called) for template in self.templates]

    def in_words(self, class_noun: str | None) -> list[str]:
        """The same prompts for a text encoder that has no concept tokens: "a dog", or nothing."""
        return [_tidy(template.format(with_article(class_noun) if class_noun else "")) for template in self.templates]


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _world() -> PromptSet:
    """Eight backgrounds with the openings in turn; sixteen things in named colours as general prompts."""
    rng = np.random.default_rng(7)
    places = list(BACKGROUNDS)[:8]
    templates = tuple(f"{OPENINGS[i % len(OPENINGS)]}{{}} {place}" for i, place in enumerate(places))
    general = tuple(
        f"{OPENINGS[i % len(OPENINGS)]}{describe(palette_look(rng), accent=False)} {places[i % 8]}" for i in range(16)
    )
    return PromptSet(templates, general)


def _photographs() -> PromptSet:
    scenes = (
        "in the snow", "on the beach", "in the jungle", "on a cobblestone street", "on a wooden floor", "in a garden",
        "in front of a mountain", "in front of the Eiffel Tower", "on top of a pink cushion", "in a busy market",
        "on a kitchen table", "at night under street lights", "in autumn leaves", "next to a river", "in a bookshop",
        "on a white background",
    )  # fmt: skip
    things = (
        "a red bicycle leaning on a wall", "a bowl of fruit on a table", "a city street in the rain", "a steam train",
        "a portrait of an old fisherman", "two children playing football", "a lighthouse at sunset", "a grey horse",
        "a plate of spaghetti", "a sailing boat on a lake", "a bedroom with a large window", "a vase of tulips",
        "a snowy mountain village", "a black cat on a sofa", "a yellow taxi in traffic", "a desert with a lone tree",
    )  # fmt: skip
    return PromptSet(tuple(f"a photo of {{}} {scene}" for scene in scenes), tuple(f"a photo of {t}" for t in things))


PROMPTS: dict[str, PromptSet] = {"world": _world(), "photographs": _photographs()}
