"""A concept from a folder: photos with or without same-stem captions, or a Hugging Face imagefolder."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from mnemon.data.concept import Concept
from mnemon.data.reading import MAX_PIXELS, SUFFIXES, read_photo, read_text
from mnemon.errors import MnemonError
from mnemon.names import NAME, check_name

METADATA = "metadata.jsonl"


def concept_from_folder(
    path: str | Path, name: str | None = None, class_noun: str | None = None, *, max_pixels: int = MAX_PIXELS
) -> Concept:
    """The photos directly in a folder (.jpg, .jpeg, .png, .webp), sorted by name; hidden files are ignored.

    A text file `a.txt` is the caption of `a.jpg`; photos without one have none. A folder with a `metadata.jsonl` is
    read by `concept_from_imagefolder` instead.

    Args:
        path: the folder.
        name: the concept's name; by default the folder's.
        class_noun: the class noun, such as "dog"; none for a style.
        max_pixels: the largest photo accepted, in pixels.

    Raises:
        MnemonError: there is no such folder, it holds no photos, a photo cannot be read, the name is no safe
            identifier, or a caption does not hold the concept's token.
    """
    folder = existing_folder(path)
    if (folder / METADATA).exists():
        return concept_from_imagefolder(folder, name, class_noun, max_pixels=max_pixels)
    name = check_name(name or name_of_folder(folder))
    captioned = [(file, _caption_beside(file, name)) for file in _images_in(folder)]
    photos = tuple(read_photo(file, max_pixels=max_pixels, caption=caption) for file, caption in captioned)
    return Concept(name, photos, class_noun)


def concept_from_imagefolder(
    path: str | Path, name: str | None = None, class_noun: str | None = None, *, max_pixels: int = MAX_PIXELS
) -> Concept:
    """The photos named in a folder's `metadata.jsonl`, in its order: a line `{"file_name": ..., "text": ...}` each.

    `file_name` is relative to the folder and may lie in a subfolder; `text` is the caption. Other fields are ignored.
    The arguments are those of `concept_from_folder`.

    Raises:
        MnemonError: as `concept_from_folder`, or a line of the metadata is malformed or names a missing photo.
    """
    folder = existing_folder(path)
    name = check_name(name or name_of_folder(folder))
    photos = []
    for where, file_name, text in _records(folder / METADATA):
        caption = checked_caption(text, name, where)
        photos.append(read_photo(_inside(folder, file_name, where), max_pixels=max_pixels, caption=caption))
    return Concept(name, tuple(photos), class_noun)


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
    """The folder's own name, for a concept without one.

    Raises:
        MnemonError: it is no safe identifier.
    """
    name = folder.resolve().name
    if NAME.fullmatch(name):
        return name
    safe = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789") or "rex"
    raise MnemonError(
        f"The name of the folder '{folder}' cannot name a concept: give the concept a name of its own, "
        f"for example '{safe[:40]}'."
    )


def checked_caption(text: str, name: str, where: str) -> str:
    """A caption on one line.

    Raises:
        MnemonError: it lacks the concept's token; `where` says whose caption it is.
    """
    caption = " ".join(text.split())
    token = f"<{name}>"
    if token not in caption:
        raise MnemonError(
            f"The caption in {where} does not name the concept: write {token} where the thing is meant, "
            f"for example 'a photo of {token} on a table', or take the caption away."
        )
    return caption


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise MnemonError(f"The folder '{folder}' cannot be read ({error.strerror}): check its permissions.") from error
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.is_dir()]
    if images:
        return images
    raise MnemonError(
        f"The folder '{folder}' {_findings(entries)}: put a few photos of the thing directly into it, "
        "as JPEG, PNG or WebP files."
    )


def _findings(entries: Sequence[Path], shown: int = 5) -> str:
    if not entries:
        return "is empty"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries[:shown]]
    more = f" and {len(entries) - shown} more" if len(entries) > shown else ""
    return f"holds no images, only {', '.join(names)}{more}"


def _caption_beside(image: Path, name: str) -> str | None:
    file = image.with_suffix(".txt")
    return checked_caption(read_text(file), name, f"'{file}'") if file.exists() else None


def _records(metadata: Path) -> Iterator[tuple[str, str, str]]:
    """(where, file name, text) of each line that is not blank; `where` is for errors."""
    for number, line in enumerate(read_text(metadata).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"line {number} of '{metadata}'"
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        match record:
            case {"file_name": str(file_name), "text": str(text)}:
                yield where, file_name, text
            case _:
                raise MnemonError(
                    f"Malformed metadata in {where}: each line is one JSON object "
                    'like {"file_name": "0.jpg", "text": "a photo of <rex>"}.'
                )


def _inside(folder: Path, file_name: str, where: str) -> Path:
    """The photo's path; metadata must not reach files outside its folder."""
    parts = PurePosixPath(file_name)
    if parts.is_absolute() or ".." in parts.parts:
        raise MnemonError(f"The file_name '{file_name}' in {where} leaves the folder: give it relative to the folder.")
    file = folder / parts
    if not file.is_file():
        raise MnemonError(f"There is no photo '{file}', which {where} names: add the photo or take the line out.")
    return file
