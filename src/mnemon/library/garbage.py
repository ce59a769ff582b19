"""What interrupted commits left in a library's folder, told apart from what somebody may miss.

Only names that this library gives are touched, and no link is followed: whatever else lies in the folder (a file
manager's files, a sync tool's copies, a backup) stays where it is.
"""

import re
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from mnemon.errors import MnemonError
from mnemon.files import remove_unfinished, writing
from mnemon.library.entry import DELTAS, PURGED, TOKENS, Entry
from mnemon.library.hashed import RESTORE
from mnemon.names import NAME

LOST = "lost"
CANDIDATE, CANDIDATE_HEADER = "candidate", "candidate.json"
_WRITTEN = ("history", "concepts", "references", "prompts", "scores", "fused")
_OF_CONCEPTS = ("concepts", "references", "prompts")
_OF_REVISIONS = ("scores", "fused")
_NUMBERED = re.compile(rf"(\d{{6,}})(?:-({NAME.pattern}))?")


def clear_garbage(library: Path, entries: Iterable[Entry]) -> None:
    """Take away what an interrupted commit left; for the one who holds the lock. `entries` are all commits.

    Half-written files are deleted, and those of purged concepts. A whole concept without a commit is moved to `lost/`
    with a warning.

    Raises:
        MnemonError: files of later commits than the last are there: a part of the history is missing.
    """
    commits = list(entries)
    if later := later_files(library, len(commits)):
        raise MnemonError(
            f"The library {library} has {later[0]}, but its history ends at revision {len(commits)}: history files are "
            f"missing, and a new commit would take their place. {RESTORE[0].upper()}{RESTORE[1:]}, or move what is "
            "left of the later revisions elsewhere."
        )
    with writing(library):
        _clear(library, commits)


def _clear(library: Path, commits: Sequence[Entry]) -> None:
    for folder in _own(library, _WRITTEN):
        remove_unfinished(folder)
    for folder in _own(library, _OF_CONCEPTS):
        for entry in commits:
            if entry.action == PURGED:
                _delete(folder / entry.folder)
                _delete(folder / f"{entry.folder}.safetensors")
    for staged in _own(library, (CANDIDATE,)):
        if not (staged / CANDIDATE_HEADER).exists():
            shutil.rmtree(staged)
    for path in _without_commit(library, {entry.folder for entry in commits}):
        _take_away(library, path)


def delete_traces(library: Path, name: str) -> None:
    """Delete what is kept of a concept apart from its commit: checkpoints, previews, what was put into `lost/`, and
    fusions that it may be in."""
    lost = library / LOST
    folders = [*_own(library, ("training", "previews", "fused")), *_own(lost, _OF_CONCEPTS)]
    with writing(library):
        for path in [path for folder in folders for path in folder.iterdir()]:
            owners = _NUMBERED.fullmatch(path.name.partition(".")[0])
            if path.parent.name == "fused" or name in path.name.split("+") or (owners and owners[2] == name):
                _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def later_files(library: Path, newest: int) -> list[str]:
    """Files that only a commit after number `newest` can have brought, as paths within the library."""
    found = []
    for folder in _own(library, (*_OF_CONCEPTS, *_OF_REVISIONS)):
        # A commit writes its concept first, so that of the next number may be an interrupted one's.
        first = newest + (1 if folder.name in _OF_REVISIONS else 2)
        found += [path for path in folder.iterdir() if (number := commit_number(path)) is not None and number >= first]
    return [str(path.relative_to(library)) for path in sorted(found)]


def _own(library: Path, names: Iterable[str]) -> Iterator[Path]:
    """Those of the library's folders that are there and lie in it."""
    folders = (library / name for name in names)
    return (folder for folder in folders if folder.is_dir() and not folder.is_symlink())


def commit_number(path: Path) -> int | None:
    """The commit's number in a name such as 000003-rex or 000003.json; None for names of another kind."""
    match = _NUMBERED.fullmatch(path.name.partition(".")[0])
    return int(match[1]) if match and path.suffix in ("", ".json", ".safetensors") and not path.is_symlink() else None


def _without_commit(library: Path, committed: Collection[str]) -> Iterator[Path]:
    for folder in _own(library, _OF_CONCEPTS):
        for path in list(folder.iterdir()):
            if commit_number(path) is not None and path.stem not in committed:
                yield path


def _take_away(library: Path, path: Path) -> None:
    whole = not path.is_dir() or {DELTAS, TOKENS} <= {file.name for file in path.iterdir()}
    if not whole:
        shutil.rmtree(path)
        return
    target = library / LOST / path.parent.name / path.name
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{path.stem}.{number}{path.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    if target.is_dir():
        warnings.warn(
            f"{path} belongs to no commit, so a commit was interrupted or its history file is lost: it is moved to "
            f"{target}. Delete it if you do not miss it.",
            UserWarning,
            stacklevel=2,
        )
