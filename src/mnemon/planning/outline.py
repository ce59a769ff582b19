"""A base without its weights: the family's own classes on torch's meta device, where tensors have shapes, not bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models import FAMILIES
from mnemon.models.pipeline import PipelineBase
from mnemon.models.transformer import TransformerBase
from mnemon.planning.stand_in import StandInTokenizer
from mnemon.world import base_folder

META = torch.device("meta")


@dataclass(frozen=True)
class Outline:
    """What is known of a base from its configs alone.

    Attributes:
        name: what the person asked for.
        family: the class of its family.
        options: its pipeline's switches.
        parts: by the pipeline's name of the part: library, class and config.
        source: where the configs come from.
    """

    name: str
    family: type[PipelineBase]
    options: Mapping[str, Any]
    parts: Mapping[str, tuple[str, str, Mapping[str, Any]]]
    source: tuple[str, ...]

    def base(self, dtype: torch.dtype, device: torch.device = META) -> PipelineBase:
        """The base with weights of `dtype`, random where the device has bytes. Its tokenizers are stand-ins.

        Raises:
            MnemonError: a part is missing, or its config does not fit its class.
        """
        try:
            return without_words(self.family(self._pipeline(dtype, device), self.name, fingerprint="outline"))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise MnemonError(f"The configs of '{self.name}' give no base: {error!r}.") from error

    def _pipeline(self, dtype: torch.dtype, device: torch.device) -> Any:
        modules = {name: _built(*part, dtype, device) for name, part in self.parts.items()}
        absent = {part: None for part in self.family.components if part not in modules}
        encoders = [part for part in self.family.components if part.startswith("text_encoder")]
        tokenizers = {
            part.replace("text_encoder", "tokenizer"): None if part in absent else StandInTokenizer()
            for part in encoders
        }
        return self.family.pipeline_class(**self.family.unused, **modules, **absent, **tokenizers, **self.options)


def known_sizes() -> list[str]:
    """The names of the bases whose configs come with the package."""
    return sorted(path.name.removesuffix(".json") for path in _sizes().iterdir() if path.name.endswith(".json"))


def outline(name: str) -> Outline:
    """The outline of "world", of one of `known_sizes()`, or of a diffusers folder, of which only configs are read.

    Raises:
        MnemonError: there is no such base, its pipeline belongs to no known family, or a config cannot be read.
    """
    if name in known_sizes():
        return _shipped(name)
    folder = base_folder() if name == "world" else Path(name).expanduser()
    if not (folder / "model_index.json").is_file():
        raise MnemonError(
            f"There is no base '{name}' to plan for: give 'world', a diffusers folder (its configs are enough), or one "
            f"of {', '.join(known_sizes())}."
        )
    return _in_folder(name, folder)


def _sizes() -> Any:
    return files("mnemon.planning") / "sizes"


def _shipped(name: str) -> Outline:
    value = json.loads((_sizes() / f"{name}.json").read_text(encoding="utf-8"))
    parts = {key: (*part["class"], part["config"]) for key, part in value["parts"].items()}
    return Outline(name, _family(name, value["pipeline"]), value["options"], parts, (value["of"], *value["source"]))


def _in_folder(name: str, folder: Path) -> Outline:
    index = _read(folder / "model_index.json")
    family = _family(name, index.get("_class_name"))
    given = {part: index.get(part) for part in (*family.components, "scheduler")}
    parts = {part: (*origin, _read(_config(folder / part))) for part, origin in given.items() if origin and any(origin)}
    switches: dict[str, Any] = {
        key: index[key] for key in ("is_distilled", "force_zeros_for_empty_prompt") if key in index
    }
    return Outline(name, family, switches, parts, (str(folder),))


def _family(name: str, pipeline: Any) -> type[PipelineBase]:
    families = {family.pipeline_class.__name__: family for family in FAMILIES.values()}
    if pipeline not in families:
        raise MnemonError(f"'{name}' is a {pipeline}, which mnemon does not know. Supported: {', '.join(families)}.")
    return families[pipeline]


def _config(folder: Path) -> Path:
    scheduler = folder / "scheduler_config.json"
    return scheduler if scheduler.is_file() else folder / "config.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MnemonError(f"The config '{path}' cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise MnemonError(f"The config '{path}' is no JSON object.")
    return value


def _built(library: str, name: str, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    cls = getattr(import_module(library), name, None) if library in ("diffusers", "transformers") else None
    if cls is None:
        raise MnemonError(f"The base has a part {library}.{name}, which the installed libraries do not have.")
    if not issubclass(cls, nn.Module):  # a scheduler
        return cls.from_config(dict(config))
    with device:
        made = (
            cls.from_config(dict(config)) if library == "diffusers" else cls(cls.config_class.from_dict(dict(config)))
        )
    return made.to(device, dtype)


def without_words(base: PipelineBase) -> PipelineBase:
    """A stand-in tokenizer knows no word, so new tokens start anywhere: they are as long as ever. Prompts are encoded
    each time, not remembered, since that is what is rehearsed."""
    widths = {encoder.name: encoder.width for encoder in base.encoders}

    def word_embeddings(word: str) -> dict[str, Tensor]:
        return {name: torch.zeros(width, device=base.device) for name, width in widths.items()}

    base.embedding_statistics = lambda: {name: (width, 0.0, 0.02) for name, width in widths.items()}  # type: ignore[method-assign]
    base.word_embeddings = word_embeddings  # type: ignore[method-assign]
    if isinstance(base, TransformerBase):
        base._prompts._altered = lambda: True  # type: ignore[method-assign]
    return base
