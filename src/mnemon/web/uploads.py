"""Photos that were dropped on the page: what is worth a word about them, and where they are kept."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mnemon.data.concept import Photo
from mnemon.data.parallel import in_threads
from mnemon.data.reading import read_photo
from mnemon.errors import MnemonError
from mnemon.files import write_text
from mnemon.names import check_name, safe_file_name

MOST = 500
"""Photos of one concept."""
SHARE, FEWEST = 4, 4
"""One photo in `SHARE` is held out, if there are `FEWEST` or more."""
Use = Literal["train", "hold out", "leave out"]


@dataclass(frozen=True)
class Dropped:
    """One file that was dropped.

    Attributes:
        name: as it was called where it came from; text, not HTML.
        use: what it is for, as chosen so far.
        hints: what is worth a word.
        refused: why it cannot be used; None if it can.
    """

    path: Path
    name: str
    use: Use = "train"
    hints: tuple[str, ...] = ()
    refused: str | None = None


def look_at(files: Sequence[Path], side: int) -> list[Dropped]:
    """What became of each file: damaged ones and copies are left out, and every fourth photo is held out to score on.

    Args:
        side: of the base's images, in pixels.

    Raises:
        MnemonError: too many files.
    """
    if len(files) > MOST:
        raise MnemonError(f"{len(files)} photos are too many: drop up to {MOST} of one thing; five to twenty do.")
    seen: dict[str, str] = {}
    dropped = []
    for path, found in zip(files, in_threads(_read, list(files)), strict=True):
        if isinstance(found, str):
            dropped.append(Dropped(path, path.name, "leave out", refused=found))
        elif (first := seen.get(found.sha256)) is not None:
            dropped.append(Dropped(path, path.name, "leave out", (f"a copy of {first}",)))
        else:
            seen[found.sha256] = path.name
            dropped.append(Dropped(path, path.name, "train", tuple(_hints(found, side))))
    return _held_out(dropped)


def _read(path: Path) -> Photo | str:
    """The photo, or why it is none."""
    try:
        return read_photo(path)
    except MnemonError as error:
        return str(error).replace(str(path), path.name)


def _hints(photo: Photo, side: int) -> list[str]:
    width, height = photo.image.size
    hints = []
    if min(width, height) < side:
        hints.append(f"small: {width} x {height} pixels, and the model's images have {side} a side")
    if max(width, height) > 2 * min(width, height):
        hints.append("long and narrow: only the middle of it is seen")
    return hints


def _held_out(dropped: Sequence[Dropped]) -> list[Dropped]:
    usable = [place for place, one in enumerate(dropped) if one.use == "train"]
    chosen = set(usable[SHARE - 1 :: SHARE]) if len(usable) >= FEWEST else set()
    return [replace(one, use="hold out") if place in chosen else one for place, one in enumerate(dropped)]


def summary(dropped: Sequence[Dropped]) -> str:
    """In words: how many are used, for what, and what was passed over."""
    if not dropped:
        return "No photos yet: drop three to twenty of one thing."
    counts = {use: sum(one.use == use for one in dropped) for use in ("train", "hold out", "leave out")}
    lines = [f"{counts['train']} photos to learn from, {counts['hold out']} held out to score on."]
    if counts["leave out"]:
        lines.append(f"{counts['leave out']} passed over.")
    if 0 < counts["train"] < 3:
        lines.append("Few photos: three to twenty give a better concept.")
    return " ".join(lines)


def keep(photos: Path, name: str, dropped: Sequence[Dropped], captions: Mapping[Path, str]) -> tuple[Path, Path | None]:
    """Copy the photos and captions below `photos`; returns the folder to learn from, and the one held out, if any.

    What was kept of an earlier try under this name is replaced.

    Raises:
        MnemonError: a name that cannot be one, or nothing to learn from.
    """
    folder = photos / check_name(name)
    if not any(one.use == "train" and one.refused is None for one in dropped):
        raise MnemonError("There is no photo to learn from: drop a few, and mark at least one 'train'.")
    shutil.rmtree(folder, ignore_errors=True)
    places = {"train": folder / "train", "hold out": folder / "held-out"}
    for number, one in enumerate(dropped):
        if one.refused is None and one.use in places:
            place = places[one.use]
            place.mkdir(parents=True, exist_ok=True)
            file = place / f"{number:03d}-{safe_file_name(one.name)}"
            shutil.copyfile(one.path, file)
            if caption := captions.get(one.path, "").strip():
                write_text(file.with_suffix(".txt"), caption + "\n")
    held_out = places["hold out"]
    return places["train"], held_out if held_out.exists() else None
