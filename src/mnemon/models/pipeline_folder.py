"""A pipeline from a diffusers folder, part by part, with all its weights."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.configs import FLOW, check_noise, check_scheduler_class
from mnemon.models.dequantized import gguf_file, read_quantized
from mnemon.models.fingerprint import fingerprint_of_files
from mnemon.models.weight_files import check_index, check_whole, chosen_variants, variants

INDEX = "model_index.json"


def open_folder(folder: Path, family: type[Base], dtype: torch.dtype, variant: str = "") -> tuple[Any, str]:
    """The pipeline in a folder, and the fingerprint of its weights' files; `variant` is the one to prefer.

    Raises:
        MnemonError: a config, a part or its weights cannot be read; the message says which and what to do.
    """
    index = read_config(folder / INDEX, str(folder))
    for kind in _scheduler_classes(folder, index):
        check_scheduler_class([kind], str(folder))
        if kind != FLOW and (config := folder / "scheduler" / "scheduler_config.json").is_file():
            check_noise(read_config(config, str(folder)), str(config))
    components = [part for part in family.components if part not in _absent(index)]
    ggufs = {part: path for part in components if (path := gguf_file(folder / part))}
    chosen = chosen_variants(folder, [part for part in components if part not in ggufs], variant)
    paths = {part: variants(folder, part)[own] for part, own in chosen.items()}
    for part, own in paths.items():
        check_index(folder / part, own, chosen[part])
    check_whole(path for own in paths.values() for path in own)
    paths |= {part: [path] for part, path in ggufs.items()}
    return _open(folder, family, dtype, index, chosen, paths), fingerprint_of_files(paths)


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a config of the base `name`.

    Raises:
        MnemonError: there is none.
    """
    if not path.is_file():
        raise MnemonError(f"'{name}' is no diffusers pipeline: it has no {path.name}.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise MnemonError(f"'{name}' is no diffusers pipeline: its {path.name} cannot be read.")
    return value


def _scheduler_classes(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """The classes that the index and the scheduler's own config name, before diffusers makes one of them."""
    config = folder / "scheduler" / "scheduler_config.json"
    named = [index.get("scheduler", [None, None])[-1]]
    if config.is_file():
        named.append(read_config(config, str(folder)).get("_class_name"))
    return [kind for kind in named if isinstance(kind, str)]


def _absent(index: Mapping[str, Any]) -> dict[str, None]:
    """Parts the checkpoint comes without, as Stable Diffusion 3 may without T5."""
    return {part: None for part, origin in index.items() if isinstance(origin, list) and not any(origin)}


def _open(
    folder: Path,
    family: type[Base],
    dtype: torch.dtype,
    index: Mapping[str, Any],
    chosen: Mapping[str, str],
    paths: Mapping[str, Sequence[Path]],
) -> Any:
    try:
        with without_bars():
            parts = {}
            for part, own in paths.items():
                config = read_config(folder / part / "config.json", str(folder))
                if part not in chosen or "quantization_config" in config:
                    parts[part] = read_quantized(folder / part, config, index[part], own, dtype)
                else:
                    parts[part] = _part(folder, part, index[part], dtype, chosen[part])
            pipeline = family.pipeline_class.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, **_absent(index) | family.unused | parts
            )
            for name in (part for part in index if part.startswith("tokenizer")):
                if (reader := getattr(pipeline, name, None)) is not None:
                    check_vocabulary(reader, str(folder / name))
            return pipeline
    except MnemonError:
        raise
    except Exception as error:  # whatever diffusers and transformers raise about it
        raise MnemonError(f"The base in '{folder}' cannot be opened: {first_line(error)}") from error


def check_vocabulary(reader: Any, place: str) -> None:
    """Refuse a tokenizer without words: transformers makes one where the files of its vocabulary are missing, and to
    it all prompts are alike.

    Args:
        reader: a tokenizer, or a processor that has one.
        place: where it was read from.

    Raises:
        MnemonError: it has none.
    """
    tokenizer = getattr(reader, "tokenizer", reader)
    if len(tokenizer.get_vocab()) <= len(set(tokenizer.all_special_tokens)):
        raise MnemonError(f"The tokenizer in '{place}' has no vocabulary: its files, such as vocab.json, are missing.")


def _part(folder: Path, part: str, origin: tuple[str, str], dtype: torch.dtype, variant: str) -> nn.Module:
    """One of the pipeline's modules, with all its weights."""
    library, kind = origin
    module, info = getattr(import_module(library), kind).from_pretrained(
        str(folder / part),
        variant=variant or None,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):
        raise MnemonError(
            f"The weights in '{folder / part}' lack {len(missing)} tensors of a {kind} of that config, such as "
            f"'{missing[0]}': fetch them again, or the config that belongs to them."
        )
    return module


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the libraries' progress bars, of which there would be one for every part."""
    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What an error says in its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
