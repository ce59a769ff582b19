"""What was read of a folder of photos, and what was passed over and why."""

import logging
from dataclasses import dataclass, field
from typing import Any

SHOWN = 5  # file names of one reason
log = logging.getLogger("mnemon")


@dataclass
class ReadingReport:
    """Filled while photos are read, and said once in the log.

    Attributes:
        source: the folder or list file.
        photos, captions, masks: how many were taken.
        passed_over: reason -> names of the files that were left out for it.
        notes: what else is worth a word, a sentence each.
    """

    source: str
    photos: int = 0
    captions: int = 0
    masks: int = 0
    passed_over: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def skip(self, reason: str, name: str) -> None:
        self.passed_over.setdefault(reason, []).append(name)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def say(self) -> None:
        """Log it: as a warning if anything was passed over or noted, or there are masks, which few runs use."""
        log.log(logging.WARNING if self.passed_over or self.notes or self.masks else logging.INFO, "%s", self)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        read = f"{self.source}: {_count(self.photos, 'photo')}, {_count(self.captions, 'caption')}"
        masks = f", {_count(self.masks, 'mask')} (used with --masked-loss only)" if self.masks else ""
        skipped = [f"passed over, {reason}: {few_of(names)}" for reason, names in self.passed_over.items()]
        return "\n".join([f"{read}{masks}.", *(f"  {line}" for line in [*skipped, *self.notes])])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def few_of(names: list[str]) -> str:
    """The first of the names, and how many they are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} ({len(names)})"
