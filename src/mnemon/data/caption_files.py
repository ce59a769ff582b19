"""Captions in files beside photos: `a.txt`, `a.caption`, `a.json` or `a.jpg.txt` for `a.jpg`, suffixes in any case."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from mnemon.data.reading import read_text
from mnemon.data.report import ReadingReport
from mnemon.errors import MnemonError

SUFFIXES = (".txt", ".caption", ".json")
KEYS = ("caption", "text", "prompt", "tags")
"""Of a caption in JSON, the first that is there."""
_PLACEHOLDER = re.compile(r"\[trigger\]", re.IGNORECASE)


class CaptionFiles:
    """The caption files among `entries`, which are of one folder, to be taken by the photos they belong to."""

    def __init__(self, entries: Iterable[Path], report: ReadingReport) -> None:
        self._report = report
        self._files: dict[str, list[Path]] = {}
        for entry in entries:
            if entry.suffix.lower() in SUFFIXES:
                self._files.setdefault(entry.name[: -len(entry.suffix)], []).append(entry)
        self._taken: dict[Path, str] = {}  # by which photo

    def of(self, photo: Path, name: str, trigger: str | None = None) -> tuple[str, str] | None:
        """The caption of a photo and the file that has it.

        Raises:
            MnemonError: files say different captions, one cannot be read, or the caption does not name the concept.
        """
        files = [*self._files.get(photo.stem, []), *self._files.get(photo.name, [])]
        for file in files:
            if file in self._taken:
                self._report.note(f"{file.name} is the caption of {photo.name} too, not of {self._taken[file]} alone.")
            self._taken[file] = photo.name
        texts = {file: text for file in files if (text := self._text(file)) is not None}
        captions = {file: checked_caption(text, name, f"'{file}'", trigger) for file, text in texts.items()}
        if not captions:
            return None
        if len(set(captions.values())) > 1:
            names = " and ".join(file.name for file in captions)
            raise MnemonError(f"'{photo}' has different captions in {names}: keep one of the files.")
        file, caption = next(iter(captions.items()))
        return caption, f"'{file}'"

    def left(self) -> list[Path]:
        """Those that no photo took."""
        return [file for files in self._files.values() for file in files if file not in self._taken]

    def _text(self, file: Path) -> str | None:
        if file.suffix.lower() != ".json":
            return read_text(file)
        caption, others = caption_in_json(file)
        if caption is None:
            self._report.skip(f"JSON without {', '.join(KEYS[:-1])} or {KEYS[-1]}", file.name)
        elif others:
            self._report.note(f"{file.name}: of its captions '{others[0]}' is used, not {', '.join(others[1:])}.")
        return caption


def caption_in_json(file: Path) -> tuple[str | None, list[str]]:
    """The caption in a JSON object, and the keys that have one, where there are several.

    Raises:
        MnemonError: the file is no JSON.
    """
    try:
        value = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise MnemonError(f"'{file}' is no JSON (line {error.lineno}: {error.msg}): mend it or delete it.") from error
    found = {key: value[key] for key in KEYS if key in value} if isinstance(value, dict) else {}
    texts = {
        key: ", ".join(map(str, said)) if isinstance(said, list) else said
        for key, said in found.items()
        if isinstance(said, str | list)
    }
    return next(iter(texts.values()), None), list(texts) if len(texts) > 1 else []


def checked_caption(text: str, name: str, where: str, trigger: str | None = None) -> str:
    """A caption on one line that names the concept: `[trigger]` and the token in other letters become `<name>`, and so
    does the word `trigger`, if the token is nowhere.

    Raises:
        MnemonError: it does not name the concept; `where` says whose caption it is.
    """
    token = f"<{name}>"
    caption = re.sub(re.escape(token), token, _PLACEHOLDER.sub(token, " ".join(text.split())), flags=re.IGNORECASE)
    if token not in caption and trigger is not None:
        word = rf"(?<![\w<-]){re.escape(trigger)}(?![\w>-])"
        caption = re.sub(word, token, caption, flags=re.IGNORECASE)
    if token in caption:
        return caption
    empty = "" if caption else " It is empty."
    raise MnemonError(
        f"The caption in {where} does not name the concept: write {token} or [trigger] where the thing is meant, "
        f"for example 'a photo of {token} on a table', or take the caption away.{empty}"
    )
