"""A concept as files: deltas, tokens and, for some methods, extra tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mnemon.adapters import load_deltas, save_deltas
from mnemon.files import sync_folder
from mnemon.library.entry import DELTAS, EXTRA, TOKENS, File
from mnemon.library.hashed import RESTORE, check_file
from mnemon.methods.base import TrainedConcept
from mnemon.tensor_files import write_safetensors


def write_concept(folder: Path, learned: TrainedConcept) -> dict[str, File]:
    """Write the concept into `folder`; returns what the files must be, by name."""
    write_safetensors(folder / DELTAS, save_deltas(learned.deltas))
    write_safetensors(folder / TOKENS, learned.tokens)
    if learned.extra:
        write_safetensors(folder / EXTRA, learned.extra)
    sync_folder(folder.parent)
    return {file.name: File.of(file) for file in sorted(folder.glob("*.safetensors"))}


def read_concept(
    folder: Path,
    name: str,
    class_noun: str | None,
    files: Mapping[str, File],
    facts: Mapping[str, Any],
    remedy: str = RESTORE,
) -> TrainedConcept:
    """The concept that `write_concept` wrote as `files`, freshly read from disk.

    Raises:
        MnemonError: a file is missing or was changed; the message ends in `remedy`.
    """
    for file_name, file in files.items():
        check_file(folder / file_name, file.sha256, file.bytes, remedy)
    deltas, tokens = load_deltas(load_file(folder / DELTAS)), load_file(folder / TOKENS)
    extra = load_file(folder / EXTRA) if EXTRA in files else {}
    return TrainedConcept(name, class_noun, deltas, tokens, dict(facts), extra)
