"""All damage of a library, and what each piece of it costs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mnemon.errors import MnemonError
from mnemon.library.candidate import has_candidate, read_candidate
from mnemon.library.entry import LEARN, Entry, chain, newest_entry
from mnemon.library.garbage import later_files
from mnemon.library.hashed import CHECKSUM, check_file
from mnemon.library.header import CONCEPTS, read_header
from mnemon.library.library import Library
from mnemon.library.recomputable import read_fused, read_prompt_features, read_references
from mnemon.library.scores import read_row


@dataclass(frozen=True)
class Problem:
    """A piece of damage.

    Attributes:
        what: the file, what is wrong with it, and what to do.
        costs: what does not work until it is mended. Everything else does.
    """

    what: str
    costs: str


def problems(path: Path | str) -> list[Problem]:
    """Everything that is damaged or missing in a library of concepts or of classes, also of removed concepts and past
    revisions. Reads all of its files.

    Raises:
        MnemonError: there is no library, or another version of mnemon wrote it.
    """
    path = Path(path)
    header = read_header(path)
    root = header[CHECKSUM]
    entries: list[Entry] = []
    found: list[Problem] = []
    newest = newest_entry(path)
    try:
        for entry in chain(path, root, newest):
            entries.append(entry)
    except MnemonError as error:
        readable = len(entries)
        found.append(Problem(str(error), f"every revision after {readable}; `--at {readable}` opens the last before"))
    found += [
        Problem(f"The file {path / one} is of a revision after the last, {newest}.", "learning and removing")
        for one in later_files(path, newest)
    ]
    checks = [*_concepts(path, entries), *_revisions(path, [root, *(entry.checksum for entry in entries)])]
    if len(entries) == newest and header.get("kind", CONCEPTS) == CONCEPTS:
        library = Library.open(path)
        checks += [(partial(read_candidate, library), "the candidate")] if has_candidate(library) else []
    return found + [Problem(what, costs) for check, costs in checks if (what := _failure(check))]


def _concepts(path: Path, entries: list[Entry]) -> Iterator[tuple[Callable[[], object], str]]:
    for entry in entries:
        if entry.action == LEARN:
            folder, name = path / "concepts" / entry.folder, entry.concept
            for file_name, file in entry.files.items():
                check = partial(check_file, folder / file_name, file.sha256, file.bytes, entry.remedy)
                yield check, f"<{name}>, learned as revision {entry.number}"
            yield partial(read_references, path, entry), f"scores of <{name}> from now on"
            yield partial(read_prompt_features, path, entry), f"the forecast of <{name}>"


def _revisions(path: Path, checksums: Iterable[str]) -> Iterator[tuple[Callable[[], object], str]]:
    for revision, checksum in enumerate(checksums):
        yield partial(read_row, path, revision, checksum), f"the scores of revision {revision}"
        yield partial(read_fused, path, revision, checksum), f"the fusion of revision {revision}"


def _failure(check: Callable[[], object]) -> str | None:
    try:
        check()
    except MnemonError as error:
        return str(error)
    return None
