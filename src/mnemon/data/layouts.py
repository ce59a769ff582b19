"""A concept from a folder: photos with captions and masks beside them, an imagefolder, or kohya's folders."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mnemon.data.caption_files import SUFFIXES as CAPTION_SUFFIXES
from mnemon.data.caption_files import CaptionFiles, checked_caption
from mnemon.data.concept import Concept
from mnemon.data.found import Found, OnPhoto, read_photos
from mnemon.data.kohya import FolderWords, relative_repeats, shared_words, words_of
from mnemon.data.masks import is_mask_folder, split_masks
from mnemon.data.metadata import NAMES as METADATA
from mnemon.data.metadata import metadata_in, note_metadata_above, photo_inside, records
from mnemon.data.reading import HEIC, MAX_PIXELS, NEEDS_HEIC, is_image
from mnemon.data.report import ReadingReport
from mnemon.errors import MnemonError
from mnemon.names import NAME, check_name, safe_name

log = logging.getLogger("mnemon")


def concept_from_folder(
    path: str | Path,
    name: str | None = None,
    class_noun: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    on_photo: OnPhoto | None = None,
) -> Concept:
    """The photos directly in a folder, sorted by name. `concept.report` says what was passed over; it is logged too.

    The caption of `a.jpg` is in `a.txt`, `a.caption`, `a.json` or `a.jpg.txt`; photos without one have none. A folder
    with a `metadata.jsonl` or `metadata.csv` is read by `concept_from_imagefolder` instead. A folder that holds no
    photos but folders like `10_rex dog` is read as kohya's trainers do: repeats, trigger word, class.

    Args:
        path: the folder.
        name: the concept's name; by default the folder's, or the trigger word.
        class_noun: the class noun, such as "dog"; none for a style.
        max_pixels: the largest photo accepted, in pixels.
        on_photo: called after each photo.

    Raises:
        MnemonError: there is no such folder, it holds no photos, a photo cannot be read, the name is no safe
            identifier, or a caption does not hold the concept's token.
    """
    return said(folder_concept(path, name, class_noun, max_pixels, on_photo))


def concept_from_imagefolder(
    path: str | Path,
    name: str | None = None,
    class_noun: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    on_photo: OnPhoto | None = None,
) -> Concept:
    """The photos named in a folder's `metadata.jsonl` or `metadata.csv`, in its order: `file_name` and `text` each.

    `file_name` is relative to the folder and may lie in a subfolder; `text` is the caption. Other fields are not used.
    The arguments are those of `concept_from_folder`.

    Raises:
        MnemonError: as `concept_from_folder`, or a line of the metadata is malformed or names a missing photo.
    """
    return said(_imagefolder_concept(existing_folder(path), name, class_noun, max_pixels, on_photo))


def said(concept: Concept) -> Concept:
    """The concept, after its report was logged."""
    assert concept.report is not None
    concept.report.say()
    return concept


def folder_concept(
    path: str | Path, name: str | None, class_noun: str | None, max_pixels: int, on_photo: OnPhoto | None = None
) -> Concept:
    """`concept_from_folder` without a word, for callers that add to the report."""
    folder = existing_folder(path)
    if metadata_in(folder):
        return _imagefolder_concept(folder, name, class_noun, max_pixels, on_photo)
    report = ReadingReport(str(folder))
    entries = _entries(folder)
    own = words_of(folder)
    flat = any(is_image(entry) for entry in entries if not _is_hidden(entry))
    repeated = [] if flat else [entry for entry in entries if entry.is_dir() and words_of(entry)]
    words = shared_words(repeated, folder, class_noun) if repeated else own
    name = _named(folder, name, words)
    if words is not None:
        class_noun = class_noun or words.class_noun
        report.note(f"the folder's name says: {words}.")
    found: list[Found] = []
    if repeated:
        _skip_others([entry for entry in entries if entry not in repeated], report)
        for inner, repeats in relative_repeats(repeated).items():
            found += _found_in(inner, _entries(inner), name, words, report, repeats)
    else:
        note_metadata_above(folder, report)
        found = _found_in(folder, entries, name, words, report)
    return Concept(name, read_photos(found, report, max_pixels, on_photo), class_noun, report)


def existing_folder(path: str | Path) -> Path:
    """The folder at `path`.

    Raises:
        MnemonError: there is none.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise MnemonError(f"There is no folder '{folder}': check the path and how it is spelled.")
    if not folder.is_dir():
        raise MnemonError(f"'{folder}' is a file, not a folder: put the photos of one thing in a folder and name that.")
    return folder


def name_of_folder(folder: Path) -> str:
    """The folder's own name, for a concept without one; made a safe identifier, with a word, if it is none.

    Raises:
        MnemonError: no letter of it is left then.
    """
    name = folder.resolve().name
    if NAME.fullmatch(name):
        return name
    if (safe := safe_name(name)) is None:
        raise MnemonError(
            f"The name of the folder '{folder}' cannot name a concept: give the concept a name of its own "
            "(--name), for example 'rex'."
        )
    log.warning("The folder '%s' cannot be named in a prompt as it is: its concept is <%s>.", name, safe)
    return safe


def _named(folder: Path, name: str | None, words: FolderWords | None) -> str:
    return check_name(name or (words and words.name) or name_of_folder(folder))


def _imagefolder_concept(
    folder: Path, name: str | None, class_noun: str | None, max_pixels: int, on_photo: OnPhoto | None
) -> Concept:
    report = ReadingReport(str(folder))
    words = words_of(folder)
    name = _named(folder, name, words)
    metadata = metadata_in(folder, report) or folder / METADATA[0]
    found = []
    for record in records(metadata, report):
        caption = checked_caption(record.text, name, record.where, words.trigger if words else None)
        found.append(Found(photo_inside(folder, record), caption, record.where))
    masks = _unnamed(folder, {one.path for one in found}, metadata.name, report)
    found = [replace(one, mask=masks.get(one.path)) for one in found]
    return Concept(name, read_photos(found, report, max_pixels, on_photo), class_noun, report)


def _unnamed(folder: Path, named: set[Path], metadata: str, report: ReadingReport) -> dict[Path, Path]:
    """The masks of the photos that metadata name; everything else that they do not name is passed over."""
    masks: dict[Path, Path] = {}
    for place in sorted({folder, *(photo.parent for photo in named)}):
        entries = [entry for entry in _entries(place) if entry.name not in METADATA]
        inside = [entry for entry in entries if entry.is_dir() and any(entry in photo.parents for photo in named)]
        photos, own = split_masks(entries, report)
        masks |= own
        for photo in photos:
            if photo not in named:
                report.skip(f"not named by {metadata}", str(photo.relative_to(folder)))
        captions = [entry for entry in entries if entry.suffix.lower() in CAPTION_SUFFIXES and entry.is_file()]
        for caption in captions:
            report.skip(f"captions are in {metadata}", str(caption.relative_to(folder)))
        _skip_others([entry for entry in entries if entry not in inside and entry not in captions], report)
    return masks


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise MnemonError(f"The folder '{folder}' cannot be read ({error.strerror}): check its permissions.") from error


def _found_in(
    folder: Path,
    entries: Sequence[Path],
    name: str,
    words: FolderWords | None,
    report: ReadingReport,
    repeats: int = 1,
) -> list[Found]:
    """The photos among the entries of one folder, with their captions and masks; the rest is passed over."""
    visible = [entry for entry in entries if not _is_hidden(entry)]
    photos, masks = split_masks(visible, report)
    if not photos:
        raise MnemonError(
            f"The folder '{folder}' {_findings(visible)}: put a few photos of the thing directly into it, "
            f"as JPEG, PNG or WebP files.{_about_folders(visible)}{_about_heic(visible)}"
        )
    captions = CaptionFiles([entry for entry in visible if entry.is_file()], report)
    found = []
    for photo in photos:
        caption, source = captions.of(photo, name, words.trigger if words else None) or (None, None)
        found.append(Found(photo, caption, source, masks.get(photo), repeats))
    left = captions.left()
    for file in left:
        report.skip("caption without a photo", file.name)
    _skip_others([entry for entry in entries if entry not in left], report)
    return found


def _skip_others(entries: Iterable[Path], report: ReadingReport) -> None:
    """Pass over what is no photo, caption or mask."""
    for entry in entries:
        if _is_hidden(entry):
            report.skip("hidden", entry.name)
        elif entry.is_dir():
            if not is_mask_folder(entry):
                report.skip("folder", f"{entry.name}/")
        elif entry.suffix.lower() in HEIC and not is_image(entry):
            report.skip(NEEDS_HEIC, entry.name)
        elif not is_image(entry) and entry.suffix.lower() not in CAPTION_SUFFIXES:
            report.skip("no photo by its suffix", entry.name)


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in ("thumbs.db", "desktop.ini")


def _about_folders(entries: Iterable[Path]) -> str:
    """A word about the folders inside that are not empty: each may be meant."""
    inside = [entry for entry in entries if entry.is_dir() and any(_entries(entry))]
    return f" Or give a folder inside, such as '{inside[0]}'." if inside else ""


def _about_heic(entries: Iterable[Path]) -> str:
    return f" {NEEDS_HEIC}." if any(entry.suffix.lower() in HEIC for entry in entries) else ""


def _findings(entries: Sequence[Path], shown: int = 5) -> str:
    if not entries:
        return "is empty"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries[:shown]]
    more = f" and {len(entries) - shown} more" if len(entries) > shown else ""
    return f"holds no images, only {', '.join(names)}{more}"
