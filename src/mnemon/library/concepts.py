"""A concept as files: deltas, tokens and, for some methods, extra tensors. Each says in its header what it is, so that
a history that is lost can be made again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from mnemon.adapters import Delta, StoredDeltas, load_deltas, save_deltas
from mnemon.files import make_folder, sync_folder
from mnemon.library.entry import DELTAS, EXTRA, TOKENS, File
from mnemon.library.hashed import RESTORE, check_file
from mnemon.library.hashed_tensors import write_hashed_tensors
from mnemon.methods.base import TrainedConcept


def write_concept(folder: Path, learned: TrainedConcept, about: Mapping[str, Any]) -> dict[str, File]:
    """Write the concept into `folder`; returns what the files must be, by name. `about` is `History.about`."""
    tensors = {DELTAS: save_deltas(learned.deltas), TOKENS: learned.tokens, EXTRA: learned.extra}
    return write_files(folder, tensors, about)


def write_files(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], about: Mapping[str, Any]) -> dict[str, File]:
    """Write tensors by file name, extra ones only if there are any; returns what the files must be, by name."""
    make_folder(folder)
    names = sorted(name for name in tensors if name != EXTRA or tensors[name])
    for name in names:
        write_hashed_tensors(folder / name, tensors[name], json.dumps(about))
    sync_folder(folder.parent)
    return {name: File.of(folder / name) for name in names}


def read_concept(
    folder: Path,
    name: str,
    class_noun: str | None,
    files: Mapping[str, File],
    facts: Mapping[str, Any],
    remedy: str = RESTORE,
    stored: bool = False,
) -> TrainedConcept:
    """The concept that `write_concept` wrote as `files`, freshly read from disk; `stored` leaves its deltas there.

    Raises:
        MnemonError: a file is missing or was changed; the message ends in `remedy`.
    """
    for file_name, file in files.items():
        check_file(folder / file_name, file.sha256, file.bytes, remedy)
    deltas: Mapping[str, Delta] = StoredDeltas(folder / DELTAS) if stored else load_deltas(load_file(folder / DELTAS))
    tokens = load_file(folder / TOKENS)
    extra = load_file(folder / EXTRA) if EXTRA in files else {}
    return TrainedConcept(name, class_noun, deltas, tokens, dict(facts), extra)
