"""Names of concepts and bases, class nouns, and names made of what somebody typed."""

import re
import unicodedata
from pathlib import PurePath

from mnemon.errors import MnemonError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LONGEST_NOUN = 200
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
NAME_RULE = "use 1 to 40 lower-case letters, digits, '_' or '-', starting with a letter, for example 'rex'."


def check_name(name: str) -> str:
    """`name`, if it may name a concept.

    Raises:
        MnemonError: it is no safe identifier.
    """
    if not NAME.fullmatch(name):
        raise MnemonError(f"'{name}' cannot name a concept: {NAME_RULE}")
    return name


def check_noun(noun: str | None) -> str | None:
    """`noun`, if it may be a class noun.

    Raises:
        MnemonError: it has characters that cannot be printed, or is no word or two.
    """
    if noun is not None and (not noun.isprintable() or len(noun) > LONGEST_NOUN):
        raise MnemonError(
            f"{printable(noun[:40])!r} is no class noun: give one or a few words in one line, such as 'dog', without "
            "control characters."
        )
    return noun


def printable(text: str) -> str:
    """The text with what a terminal would obey instead of show (control characters, changes of direction) as its code
    point; ends of lines and tabs stay."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def public_base(name: str, family: str, fingerprint: str) -> str:
    """What a file that goes to others calls a base: a hub id, or "world"; of a folder or file, whose path is its
    owner's business, family and fingerprint."""
    return name if name == "world" or HUB_ID.fullmatch(name.partition(":")[0]) else f"{family} {fingerprint[:12]}"


def safe_name(text: str) -> str | None:
    """The name of a concept that is nearest to `text`: "mein_hund" of "Mein Hund"; None if no letter is left."""
    name = re.sub(r"[^a-z0-9-]+", "_", _plain(text).lower()).strip("_-0123456789")
    return name[:40].rstrip("_-") or None


def safe_file_name(text: str) -> str:
    """The name of a file in plain ASCII, without folders, hidden or reserved names: "a_1.jpg" of "../ä 1.JPG"."""
    path = PurePath(_plain(text).replace("\\", "/").rsplit("/", 1)[-1])
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_")[:60]
    return f"{stem or 'photo'}{re.sub(r'[^a-z0-9.]', '', path.suffix.lower())[:10]}"


def _plain(text: str) -> str:
    """In ASCII, accents taken off."""
    return unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
