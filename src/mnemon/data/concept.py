"""A concept as users give it: a few photos of one thing, and a name."""

from dataclasses import dataclass

from PIL import Image

from mnemon.errors import MnemonError
from mnemon.names import check_name


@dataclass(frozen=True)
class Photo:
    """One image, already upright RGB. `caption` may hold the concept's token; `source` names the file for errors;
    `sha256` is the hash of the file's bytes (of the pixels, where there is no file)."""

    image: Image.Image
    source: str
    sha256: str
    caption: str | None = None


@dataclass(frozen=True)
class Concept:
    """A name, photos and, if given, the class noun ("dog"). A style has none.

    Raises:
        MnemonError: the name is no safe identifier, or there is no photo.
    """

    name: str
    photos: tuple[Photo, ...]
    class_noun: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.photos:
            raise MnemonError(f"The concept '{self.name}' has no photos: give at least one, better three to six.")

    @property
    def token(self) -> str:
        """The placeholder token of the concept in prompts: `<name>`."""
        return f"<{self.name}>"
