"""A candidate: concepts that were trained and staged, but not committed to the history.

    candidate/candidate.json        what their commits will say, the checksum of the parent commit, what they forget
    candidate/0/                    the files of the first of them, as in concepts/; 1/ of the second, and so on
    candidate/0-references.safetensors

There is a candidate from the renaming of candidate.json on until that file is removed; files without it are garbage
of a crash. One can be committed only where it was trained: after its parent commit.

Concepts that were learned together are committed as a candidate that is accepted: after a crash the next writer
commits what is left of it, so that either all of them come in or none.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.files import sync_folder, writing
from mnemon.library.concepts import read_concept, write_concept
from mnemon.library.entry import DELTAS, EXTRA, LEARN, TOKENS, Entry, File
from mnemon.library.garbage import CANDIDATE, CANDIDATE_HEADER
from mnemon.library.hashed import read_hashed, write_hashed
from mnemon.library.hashed_tensors import read_hashed_tensors, write_hashed_tensors
from mnemon.library.library import Library
from mnemon.methods.base import TrainedConcept
from mnemon.names import NAME

REMEDY = "drop the candidate with `mnemon discard`, and learn it again"


@dataclass(frozen=True)
class Proposal:
    """One concept and what its commit is to say, as for `Library.commit`."""

    learned: TrainedConcept
    photos: Sequence[Mapping[str, str]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Candidate:
    """Staged concepts.

    Attributes:
        row: their row of scores, as in `Library.rows`.
        forgets: earlier concept -> its best identity alignment, and that in `row`.
    """

    proposals: tuple[Proposal, ...]
    row: Mapping[str, Any]
    forgets: Mapping[str, tuple[float, float]]

    @property
    def names(self) -> list[str]:
        return [one.learned.name for one in self.proposals]


def has_candidate(library: Library) -> bool:
    return _header(library).exists()


def check_no_candidate(library: Library) -> None:
    """Raises:
    MnemonError: there is one, which could not be committed any more after another commit.
    """
    if has_candidate(library):
        raise MnemonError(
            f"A candidate is kept aside in the library {library.path}: take it in with `mnemon commit --anyway`, or "
            "drop it with `mnemon discard`."
        )


def commit_all(library: Library, proposals: Sequence[Proposal]) -> None:
    """Commit concepts that were learned together, all or none; the library's lock is held.

    Raises:
        MnemonError: as `Library.commit`, or there is a candidate.
    """
    if len(proposals) == 1:
        (one,) = proposals
        library.commit(one.learned, one.photos, one.settings, one.references)
        return
    for one in proposals:
        library.check_name(one.learned.name)
    put_aside(library, Candidate(tuple(proposals), {}, {}), accepted=True)
    commit_candidate(library)


def is_unfinished(library: Path) -> bool:
    """Whether a commit of several concepts was interrupted. Reads no tensors. A damaged record says nothing; it stands
    in the way of learning until it is dropped."""
    path = library / CANDIDATE / CANDIDATE_HEADER
    try:
        return path.exists() and bool(read_hashed(path, REMEDY).get("accepted"))
    except MnemonError:
        return False


def put_aside(library: Library, candidate: Candidate, accepted: bool = False) -> None:
    """Keep the candidate in the library's folder, without making it part of the library; an accepted one is committed
    by the next writer.

    Raises:
        MnemonError: another one is staged.
    """
    with library.lock():
        if has_candidate(library):
            raise MnemonError(f"A candidate is staged in {library.path} already: commit or discard that one first.")
        _clear(library)
        concepts = [_write(library, number, one) for number, one in enumerate(candidate.proposals)]
        body = {"parent": library.checksum, "state": library.revision, "concepts": concepts, "accepted": accepted}
        write_hashed(_header(library), {**body, "row": candidate.row, "forgets": candidate.forgets})


def read_candidate(library: Library) -> Candidate:
    """Raises:
    MnemonError: there is none, or a file of it is damaged.
    """
    body = _body(library)
    proposals = tuple(_read(library, number, one) for number, one in enumerate(body["concepts"]))
    forgets = {name: (before, after) for name, (before, after) in body["forgets"].items()}
    return Candidate(proposals, body["row"], forgets)


def commit_candidate(library: Library) -> int:
    """Commit the candidate, with its row; returns the new revision. After a crash it may be called again.

    Raises:
        MnemonError: there is none, it is damaged, or the library has changed since it was learned.
    """
    with library.lock():
        body, candidate = _body(library), read_candidate(library)
        done = _taken(library, body)
        forgets = {"forgets": dict(candidate.forgets)} if candidate.forgets else {}
        for one in candidate.proposals[done:]:
            settings = {**one.settings, **forgets}
            library.commit(one.learned, one.photos, settings, one.references, learned_at=body["state"])
        if candidate.row:
            library.write_row(library.revision, candidate.row)
        _clear(library)
        return library.revision


def discard_candidate(library: Library) -> None:
    """Drop the candidate, damaged or not.

    Raises:
        MnemonError: there is none.
    """
    with library.lock(finish=False):
        _check_there(library)
        _clear(library)


def _taken(library: Library, body: Mapping[str, Any]) -> int:
    """How many of the candidate's concepts a commit that was cut short has taken in already."""
    revision, concepts = body["state"], body["concepts"]
    since = library.history()[revision:]
    follows = revision <= library.revision
    if body["parent"]:  # older versions did not say it of a new library
        follows = follows and body["parent"] == library.checksum_at(revision)
    follows = follows and len(since) <= len(concepts)
    own = [(LEARN, one["name"], {name: File(**file) for name, file in one["files"].items()}) for one in concepts]
    if not follows or [(entry.action, entry.concept, dict(entry.files)) for entry in since] != own[: len(since)]:
        after = ", ".join(f"{entry.action} <{entry.concept}>" for entry in since) or f"revision {library.revision}"
        raise MnemonError(
            f"The library {library.path} has changed since its candidate was learned at revision {revision} (then "
            f"came: {after}): {REMEDY}."
        )
    return len(since)


def _folder(library: Library) -> Path:
    return library.path / CANDIDATE


def _header(library: Library) -> Path:
    return _folder(library) / CANDIDATE_HEADER


def _check_there(library: Library) -> None:
    if not has_candidate(library):
        raise MnemonError(f"No candidate is staged in the library {library.path}.")


def _body(library: Library) -> dict[str, Any]:
    _check_there(library)
    return read_hashed(_header(library), REMEDY)


def _write(library: Library, number: int, one: Proposal) -> dict[str, Any]:
    learned = one.learned
    entry = Entry(
        library.revision + 1 + number, LEARN, learned.name, "", library.checksum, learned.class_noun,
        facts=dict(learned.facts),
    )  # fmt: skip
    files = write_concept(_folder(library) / str(number), learned, library.about(entry))
    if one.references:
        write_hashed_tensors(_references(library, number), one.references, _owner(learned.name))
    return {
        "name": learned.name,
        "noun": learned.class_noun,
        "files": {name: asdict(file) for name, file in files.items()},
        "photos": [dict(photo) for photo in one.photos],
        "settings": dict(one.settings),
        "facts": dict(learned.facts),
        "references": bool(one.references),
    }


def _read(library: Library, number: int, body: Mapping[str, Any]) -> Proposal:
    folder = _folder(library) / str(number)
    files = {name: File(**file) for name, file in body["files"].items()}
    if not NAME.fullmatch(body["name"]) or set(files) - {EXTRA} != {DELTAS, TOKENS}:
        # Names become paths: nothing in a candidate may lead out of the library's folder.
        raise MnemonError(f"The file {_header(library)} describes no candidate: {REMEDY}.")
    learned = read_concept(folder, body["name"], body["noun"], files, body["facts"], REMEDY)
    references = None
    if body["references"]:
        references = read_hashed_tensors(_references(library, number), _owner(body["name"]), REMEDY)
    return Proposal(learned, body["photos"], body["settings"], references)


def _owner(name: str) -> str:
    return f"the candidate {name}"


def _references(library: Library, number: int) -> Path:
    return _folder(library) / f"{number}-references.safetensors"


def _clear(library: Library) -> None:
    """The header goes first: what is left without it is no candidate."""
    if _folder(library).exists():
        with writing(_folder(library)):
            _header(library).unlink(missing_ok=True)
            sync_folder(_folder(library))
            shutil.rmtree(_folder(library))
