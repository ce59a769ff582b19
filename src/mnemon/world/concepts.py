"""Concepts of the world: an endless seeded supply of things with looks of their own, and of styles."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mnemon.data.concept import Concept, Photo
from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.captions import OPENINGS, with_article
from mnemon.world.looks import Look, free_look, palette_look
from mnemon.world.scenes import Scene, render, single_pose
from mnemon.world.styles import Style, random_style
from mnemon.world.things import NOUNS


@dataclass(frozen=True)
class WorldConcept:
    """One thing (`look`) drawn in ever new poses and places, or one `style` drawn on ever new things."""

    name: str
    look: Look | None = None
    style: Style | None = None

    @property
    def class_noun(self) -> str | None:
        return self.look.noun if self.look else None

    def draw(self, seed: int) -> tuple[Image.Image, str]:
        """An image of the concept and its caption, which holds the token `<name>` and no attribute."""
        rng = np.random.default_rng((seed, 7))
        look = self.look or palette_look(rng)
        background = str(rng.choice(list(BACKGROUNDS)))
        scene = Scene((look,), (single_pose(rng),), background, int(rng.integers(2**31)), self.style)
        opening = OPENINGS[int(rng.integers(1, len(OPENINGS)))]
        thing = f"<{self.name}>" if self.look else with_article(look.noun)
        ending = "" if self.look else f" in <{self.name}> style"
        return render(scene).image, f"{opening}{thing} {background}{ending}"

    def photos(self, count: int, seed: int) -> Concept:
        """`count` photos as a person would bring them; other seeds give other poses and places."""
        images = [self.draw(seed * 1000 + index) for index in range(count)]
        photos = tuple(
            Photo(image, f"{self.name}-{seed}-{index}", hashlib.sha256(image.tobytes()).hexdigest(), caption)
            for index, (image, caption) in enumerate(images)
        )
        return Concept(self.name, photos, self.class_noun)

    def write(self, folder: Path, count: int, seed: int) -> None:
        """The same photos as files: `00.png` with `00.txt` beside it, and so on."""
        folder.mkdir(parents=True, exist_ok=True)
        for index, photo in enumerate(self.photos(count, seed).photos):
            photo.image.save(folder / f"{index:02}.png")
            (folder / f"{index:02}.txt").write_text(f"{photo.caption}\n", encoding="utf-8")


def thing_concept(name: str, seed: int, class_noun: str | None = None) -> WorldConcept:
    """The thing number `seed` of the endless supply; of `class_noun`, if one is given."""
    rng = np.random.default_rng((seed, 17))
    return WorldConcept(name, free_look(rng, class_noun or NOUNS[int(rng.integers(len(NOUNS)))]))


def style_concept(name: str, seed: int, family: str | None = None) -> WorldConcept:
    """The style number `seed` of the endless supply."""
    return WorldConcept(name, style=random_style(np.random.default_rng((seed, 27)), family))
