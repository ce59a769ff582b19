"""A concept as users give it: a few photos of one thing, and a name."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from PIL import Image

from mnemon.data.report import ReadingReport
from mnemon.errors import MnemonError
from mnemon.names import check_name, check_noun


class Stored(Protocol):
    """An image that is decoded anew whenever it is asked for, so that many need no memory."""

    def __call__(self, side: int | None = None) -> Image.Image:
        """The image; with `side` possibly scaled down while it is decoded, but no side of it to fewer pixels."""


@dataclass(frozen=True)
class Photo:
    """One image, upright RGB.

    Attributes:
        stored: the image, or how to decode it.
        source: names the file for errors.
        sha256: hash of the file's bytes (of the pixels, where there is no file).
        caption: it may hold the concept's token.
        caption_source: where the caption was read, for errors.
        mask: grey, white where the concept is; of the photo's shape, in any size.
        repeats: how often the photo counts in training.
    """

    stored: Image.Image | Stored
    source: str
    sha256: str
    caption: str | None = None
    caption_source: str | None = None
    mask: Image.Image | Stored | None = None
    repeats: int = 1

    @property
    def image(self) -> Image.Image:
        return decoded(self.stored)


def decoded(image: Image.Image | Stored, side: int | None = None) -> Image.Image:
    """The image itself; see `Stored` for `side`."""
    return image if isinstance(image, Image.Image) else image(side)


@dataclass(frozen=True)
class Concept:
    """A name, photos and, if given, the class noun ("dog"). A style has none.

    `report` says what was read and what was passed over, where the photos come from files.

    Raises:
        MnemonError: the name is no safe identifier, the noun no word, or there is no photo.
    """

    name: str
    photos: tuple[Photo, ...]
    class_noun: str | None = None
    report: ReadingReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_noun(self.class_noun)
        if not self.photos:
            raise MnemonError(f"The concept '{self.name}' has no photos: give at least one, better three to six.")

    @property
    def token(self) -> str:
        """The placeholder token of the concept in prompts: `<name>`."""
        return f"<{self.name}>"

    def distinct(self) -> "Concept":
        """With each file once."""
        first: dict[str, Photo] = {}
        for index, photo in enumerate(self.photos):
            first.setdefault(photo.sha256 or str(index), photo)
        return replace(self, photos=tuple(first.values()))
