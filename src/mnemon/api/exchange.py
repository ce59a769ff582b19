"""To and from the files of other tools: export concepts, import a LoRA or an embedding."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mnemon.adapters import Delta
from mnemon.api.memory import gpu_errors
from mnemon.api.opening import base_of, encoders_of, opened_or_created
from mnemon.data import Concept
from mnemon.errors import MnemonError
from mnemon.evaluation import Encoders, EvalSettings
from mnemon.evaluation.evaluate import OnImages
from mnemon.export import ExportResult, RankSelection, as_concept, export, push, read_adapter
from mnemon.library import Library, Proposal, check_no_candidate
from mnemon.methods.base import Method
from mnemon.models import Base
from mnemon.models.quantization import weights_of
from mnemon.names import NAME
from mnemon.training.committing import ScoredCommit
from mnemon.training.scoring import Policy


@dataclass(frozen=True)
class ImportResult:
    """What `import_concept` did: the concept's name, the library's new revision, how many layers it changes, how many
    vectors its token has, and what of the files was left out.

    Attributes:
        words: what `<name>` stands for, where the files hold no embedding.
        row: the new revision's row of scores; None if not scored.
        notes: for the user, one sentence each.
    """

    concept: str
    revision: int
    layers: int
    vectors: int
    left: tuple[str, ...]
    row: dict[str, Any] | None = None
    words: str | None = None
    notes: tuple[str, ...] = ()


def export_concepts(
    library: str | Path | Library,
    out: str | Path,
    names: Sequence[str] = (),
    *,
    kind: str = "diffusers",
    base: str | Base | None = None,
    rank_selection: RankSelection | None = None,
    half: bool = False,
    images: int = 0,
    repository: str | None = None,
) -> ExportResult:
    """Write concepts of a library, all without `names`, as files that other tools read; see `mnemon.export.export`.

    Args:
        half: store weights in 16 bits.
        repository: upload the folder to this repository of the Hugging Face hub as well.

    Raises:
        MnemonError: an unknown concept, a folder that is not empty, something the files cannot hold, or the hub's no.
    """
    opened = Library.open(library) if isinstance(library, str | Path) else library
    dtype = torch.float16 if half else torch.float32
    found = base_of(opened, base)
    with gpu_errors(found):
        made = export(
            opened, found, Path(out), names, kind=kind, rank_selection=rank_selection, dtype=dtype, images=images
        )
    if repository:
        push(made.folder, repository)
    return made


def import_concept(
    library: str | Path,
    files: Sequence[str | Path],
    name: str | None = None,
    class_noun: str | None = None,
    *,
    trigger: str | None = None,
    partial: bool = False,
    base: str | Base | None = None,
    method: str | Method | None = None,
    references: Concept | None = None,
    score: EvalSettings | None = None,
    scored: bool = True,
    resample: Policy = "all",
    max_forgetting: float | None = None,
    encoders: Encoders | None = None,
    on_images: OnImages | None = None,
) -> ImportResult:
    """Take a LoRA, an embedding, or one of each, that others made, into a library as one concept, and score every
    concept so far.

    A library that does not exist yet is made, as `learn` makes it.

    Args:
        name: what to call it; without one the first file's name, as far as it may be one.
        trigger: the words that call a LoRA without an embedding; `<name>` then stands for them.
        partial: go on without what cannot be carried.
        references: photos of the concept to score it against; without them only the others are scored.
        scored: whether to score.
        resample: as for `learn`.
        max_forgetting: refuse the file if the identity alignment of an earlier concept falls by more than this below
            its best so far.
        score, encoders, on_images: as for `learn`.

    Raises:
        BudgetExceeded: earlier concepts fall by more than `max_forgetting`; the library is as it was.
        MnemonError: a file cannot be read, does not fit the base, or holds what cannot be carried; the name is taken;
            the method composes in a way that leaves nothing of it.
    """
    paths = [Path(file) for file in files]
    concept_name = name or _name_of(paths[0])
    if max_forgetting is not None and not scored:
        raise MnemonError("Forgetting is measured by scores: leave out max_forgetting, or import with scores.")
    with opened_or_created(Path(library), base, method) as (opened, found), opened.lock():
        check_no_candidate(opened)
        opened.check_name(concept_name)
        adapter = read_adapter(paths, found, partial)
        learned = as_concept(adapter, found, opened.method, concept_name, class_noun, trigger)
        sources = adapter.sources
        known = _known_files(opened, sources)
        imported = {"files": sources, "left": list(adapter.skipped)}
        record = {"imported": imported, "weights": weights_of(found)}
        committing = ScoredCommit(
            library=opened,
            base=found,
            encoders=(encoders or encoders_of(found)) if scored else None,
            score=score,
            policy=resample,
            max_forgetting=max_forgetting,
        )
        features = committing.reference_features(references)
        with gpu_errors(found):
            committing.commit([Proposal(learned, (), record, features)], on_images)
            row = committing.finish(on_images)
    left = [f"Left out: {reason}." for account in adapter.accounts for reason in account.reasons()]
    return ImportResult(
        concept_name,
        opened.revision,
        layers=len(learned.deltas),
        vectors=max(len(tensor) for tensor in learned.tokens.values()),
        left=adapter.skipped,
        row=row,
        words=learned.facts.get("words"),
        notes=(*known, *_zeros(learned.deltas), *left),
    )


def _zeros(deltas: Mapping[str, Delta]) -> list[str]:
    """A note if no weight is changed at all, as by a LoRA that was saved before its first step."""
    if not deltas or any(delta.matrix().any() for delta in deltas.values()):
        return []
    return [f"All {len(deltas)} changes are zero: they leave the base as it is. Was the file saved before training?"]


def _known_files(library: Library, sources: Sequence[Mapping[str, str]]) -> list[str]:
    """A note for each file that a concept of the library was imported from already."""
    notes = []
    for name, entry in library.concepts().items():
        known = {source["sha256"] for source in entry.settings.get("imported", {}).get("files", ())}
        notes += [
            f"'{source['source']}' is in the library already, as <{name}>: both together change the base twice."
            for source in sources
            if source["sha256"] in known
        ]
    return notes


def _name_of(path: Path) -> str:
    name = re.sub("[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")
    if not NAME.fullmatch(name):
        raise MnemonError(f"'{path.name}' gives the concept no name: choose one with --name.")
    return name
