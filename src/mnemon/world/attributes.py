"""What a caption of the world can name of an image: the attributes and the words for each, in the order of the
classifier's classes."""

from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.looks import COLOURS, PATTERNS
from mnemon.world.things import NOUNS

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "noun": NOUNS,
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "background": tuple(BACKGROUNDS),
}
