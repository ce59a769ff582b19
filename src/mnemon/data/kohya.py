"""Folders named as kohya's trainers read them: `10_rex dog` is ten repeats, the trigger word and the class."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnemon.errors import MnemonError
from mnemon.names import NAME

_PATTERN = re.compile(r"(\d+)_(\S+)(?:\s+(\S.*))?")


@dataclass(frozen=True)
class FolderWords:
    """What the name of a folder says.

    Attributes:
        repeats: how often each photo counts.
        trigger: the concept's word in the captions.
        class_noun: the words after it.
    """

    repeats: int
    trigger: str
    class_noun: str | None

    @property
    def name(self) -> str | None:
        """The trigger as a concept's name, if it can be one."""
        return self.trigger.lower() if NAME.fullmatch(self.trigger.lower()) else None

    def __str__(self) -> str:
        said = f", class noun '{self.class_noun}'" if self.class_noun else ""
        return f"trigger word '{self.trigger}'{said}"


def words_of(folder: Path) -> FolderWords | None:
    """What the folder's name says, if it is of this form."""
    match = _PATTERN.fullmatch(folder.resolve().name.strip())
    if match is None or not int(match[1]):
        return None
    return FolderWords(int(match[1]), match[2], match[3])


def shared_words(folders: Sequence[Path], parent: Path, class_noun: str | None) -> FolderWords:
    """What folders of one concept say together; `class_noun` is what the user said.

    Raises:
        MnemonError: they are of several concepts.
    """
    words = [said for folder in folders if (said := words_of(folder))]
    triggers = dict.fromkeys(one.trigger for one in words)
    nouns = dict.fromkeys(one.class_noun for one in words)
    if len(triggers) > 1:
        raise MnemonError(
            f"'{parent}' holds folders of several concepts ({', '.join(triggers)}): learn each from its own folder."
        )
    if len(nouns) > 1 and class_noun is None:
        raise MnemonError(
            f"The folders in '{parent}' say several classes ({', '.join(str(noun) for noun in nouns)}): "
            "give the class noun."
        )
    return FolderWords(1, words[0].trigger, words[0].class_noun)


def relative_repeats(folders: Sequence[Path]) -> dict[Path, int]:
    """The repeats of each folder over their greatest common divisor: only what differs matters."""
    repeats = {folder: said.repeats for folder in folders if (said := words_of(folder))}
    common = math.gcd(*repeats.values())
    return {folder: count // common for folder, count in repeats.items()}
