"""Captions in one file for a whole folder: `metadata.jsonl` or `metadata.csv` of a Hugging Face imagefolder."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mnemon.data.reading import read_bytes, read_text
from mnemon.data.report import ReadingReport
from mnemon.errors import MnemonError

NAMES = ("metadata.jsonl", "metadata.csv")
"""The first that is there is read."""
FILE_KEYS = ("file_name", "image", "file")
TEXT_KEYS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class Record:
    """One line: the photo, its caption, and where that stands, for errors."""

    file_name: str
    text: str
    where: str


def metadata_in(folder: Path, report: ReadingReport | None = None) -> Path | None:
    """The folder's metadata file, if it has one; others beside it are passed over."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    for other in found[1:]:
        if report is not None:
            report.skip(f"captions are in {found[0].name}", other.name)
    return found[0] if found else None


def records(metadata: Path, report: ReadingReport) -> list[Record]:
    """The lines that are not blank; fields without a use are noted.

    Raises:
        MnemonError: a line is malformed, or there is none.
    """
    read, unused = [], dict[str, None]()
    rows = _csv_rows if metadata.suffix == ".csv" else _json_rows
    for number, row in rows(metadata):
        where = f"line {number} of '{metadata}'"
        file_key, text_key = (next((key for key in keys if row.get(key)), None) for keys in (FILE_KEYS, TEXT_KEYS))
        file_name, text = row.get(file_key or ""), row.get(text_key or "")
        if not isinstance(file_name, str) or not isinstance(text, str):
            raise MnemonError(
                f"Malformed metadata in {where}: each line has a file_name and a text, "
                'like {"file_name": "0.jpg", "text": "a photo of <rex>"} in JSON.'
            )
        read.append(Record(file_name, text, where))
        unused.update(dict.fromkeys(str(key) for key in row if key not in (file_key, text_key)))
    if not read:
        raise MnemonError(f"'{metadata}' names no photos: add a line for each, or delete it.")
    if unused:
        report.note(f"{metadata.name}: fields that are not used: {', '.join(unused)}.")
    return read


def photo_inside(folder: Path, record: Record) -> Path:
    """The photo's path; metadata must not reach files outside its folder.

    Raises:
        MnemonError: it does, or there is no such file.
    """
    parts = PurePosixPath(record.file_name)
    if parts.is_absolute() or ".." in parts.parts:
        raise MnemonError(
            f"The file_name '{record.file_name}' in {record.where} leaves the folder: give it relative to the folder."
        )
    file = folder / parts
    if not file.is_file():
        raise MnemonError(f"There is no photo '{file}', which {record.where} names: add it or take the line out.")
    return file


def note_metadata_above(folder: Path, report: ReadingReport) -> None:
    """Note metadata one folder up that name photos of this one."""
    metadata = metadata_in(folder.resolve().parent)
    if metadata is not None and f"{folder.resolve().name}/".encode() in read_bytes(metadata):
        report.note(f"'{metadata}' names photos of this folder and is not read: give '{metadata.parent}' to use it.")


def _json_rows(metadata: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_text(metadata).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            yield number, row if isinstance(row, dict) else {}


def _check_columns(columns: Sequence[str], metadata: Path) -> None:
    """Raises:
    MnemonError: one that is needed is not there, as where semicolons or tabs separate them.
    """
    for keys in (FILE_KEYS, TEXT_KEYS):
        if columns and not any(key in columns for key in keys):
            raise MnemonError(
                f"The columns of '{metadata}' are {list(columns)}, and none is {keys[0]}: the first line is "
                "file_name,text, separated by a comma, as all lines are."
            )


def _csv_rows(metadata: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(read_text(metadata), newline=""))
    try:
        _check_columns(reader.fieldnames or [], metadata)
        for row in reader:
            if None in row:
                raise MnemonError(
                    f"Malformed metadata in line {reader.line_num} of '{metadata}': it has more fields than the first "
                    'line; a caption with commas stands in quotes, "like this, see".'
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise MnemonError(f"'{metadata}' is no CSV (line {reader.line_num}: {error}): mend that line.") from error
