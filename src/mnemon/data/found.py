"""Reading the photos that were found: in threads, with a word about copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mnemon.data.concept import Photo
from mnemon.data.parallel import in_threads
from mnemon.data.reading import read_photo, stored_mask
from mnemon.data.report import ReadingReport, few_of

OnPhoto = Callable[[int, int], None]
"""Called with the photos read and the photos in all."""


@dataclass(frozen=True)
class Found:
    """A photo that has not been read yet: its file, caption, where that was read, mask, and repeats."""

    path: Path
    caption: str | None = None
    caption_source: str | None = None
    mask: Path | None = None
    repeats: int = 1


def read_photos(
    found: Sequence[Found], report: ReadingReport, max_pixels: int, on_photo: OnPhoto | None
) -> tuple[Photo, ...]:
    """The photos in their order; files with the same bytes are noted.

    Raises:
        MnemonError: a file cannot be read.
    """
    photos: list[Photo] = []
    first: dict[str, str] = {}
    copies = []
    read = in_threads(lambda one: _read(one, max_pixels), found)
    for done, (one, (photo, notes)) in enumerate(zip(found, read, strict=True), start=1):
        if on_photo is not None:
            on_photo(done, len(found))
        for note in notes:
            report.note(f"{one.path.name}: {note}.")
        if photo.sha256 in first:
            copies.append(f"{one.path.name} (of {first[photo.sha256]})")
        first.setdefault(photo.sha256, one.path.name)
        photos.append(photo)
    if copies:
        report.note(f"copies, trained on again but scored against once: {few_of(copies)}.")
    report.photos = len(photos)
    report.captions = sum(photo.caption is not None for photo in photos)
    report.masks = sum(photo.mask is not None for photo in photos)
    return tuple(photos)


def _read(found: Found, max_pixels: int) -> tuple[Photo, list[str]]:
    """The photo, and what is worth a word about it."""
    notes: list[str] = []
    photo = read_photo(found.path, max_pixels=max_pixels, caption=found.caption, note=notes.append)
    mask = stored_mask(found.mask, max_pixels=max_pixels) if found.mask else None
    return replace(photo, caption_source=found.caption_source, mask=mask, repeats=found.repeats), notes
