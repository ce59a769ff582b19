"""A base without its weights: the family's own classes on torch's meta device, where tensors have shapes, not bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.base import Base
from mnemon.models.conditioning import Conditioning
from mnemon.models.loading import family_of
from mnemon.models.single_file import single_file_configs
from mnemon.models.transformer import TransformerBase
from mnemon.planning.dummy_tokenizer import DummyTokenizer
from mnemon.world import base_folder

META = torch.device("meta")


class EmptyModel(Base):
    """Mixed into a family's class: answers what depends on the values of weights, which are not there."""

    def embedding_statistics(self) -> dict[str, tuple[int, float, float]]:
        return {encoder.name: (encoder.width, 0.0, 0.02) for encoder in self.encoders}

    def word_embeddings(self, word: str) -> dict[str, Tensor]:
        return {encoder.name: torch.zeros(encoder.width, device=self.device) for encoder in self.encoders}


class EmptyTransformer(EmptyModel, TransformerBase):
    """Encodes each prompt anew, since a dry run counts what encoding holds."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        encoded = self._encode(prompts)
        return Conditioning.cat([encoded[row : row + 1] for row in range(len(prompts))])  # as the prompt cache does


@dataclass(frozen=True)
class ModelConfigs:
    """A base as its configs describe it.

    Attributes:
        name: what the user asked for.
        family: the class of its family.
        options: its pipeline's switches.
        parts: by the pipeline's name of the part: library, class and config.
        source: where the configs come from.
    """

    name: str
    family: type[Base]
    options: Mapping[str, Any]
    parts: Mapping[str, tuple[str, str, Mapping[str, Any]]]
    source: tuple[str, ...]

    def empty_model(self, dtype: torch.dtype, device: torch.device = META) -> Base:
        """The base with weights of `dtype`, random where the device has memory, and with dummy tokenizers.

        Raises:
            MnemonError: a part is missing, or its config does not fit its class.
        """
        mixin = EmptyTransformer if issubclass(self.family, TransformerBase) else EmptyModel
        empty: type[Base] = type(f"Empty{self.family.__name__}", (mixin, self.family), {})
        try:
            return empty(self._pipeline(dtype, device), self.name, fingerprint="empty")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise MnemonError(f"The configs of '{self.name}' give no base: {error!r}.") from error

    def _pipeline(self, dtype: torch.dtype, device: torch.device) -> Any:
        modules = {name: _module(*part, dtype, device) for name, part in self.parts.items()}
        absent = {part: None for part in self.family.components if part not in modules}
        encoders = [part for part in self.family.components if part.startswith("text_encoder")]
        tokenizers = {
            part.replace("text_encoder", "tokenizer"): None if part in absent else DummyTokenizer() for part in encoders
        }
        return self.family.pipeline_class(**self.family.unused, **modules, **absent, **tokenizers, **self.options)


def shipped_configs() -> list[str]:
    """Names of the bases whose configs come with the package."""
    return sorted(path.name.removesuffix(".json") for path in _sizes().iterdir() if path.name.endswith(".json"))


def read_configs(name: str) -> ModelConfigs:
    """The configs of "world", of one of `shipped_configs()`, of a diffusers folder, or of a checkpoint in one file.

    Raises:
        MnemonError: there is no such base, its pipeline belongs to no known family, or a config cannot be read.
    """
    if name in shipped_configs():
        return _shipped(name)
    folder = base_folder() if name == "world" else Path(name).expanduser()
    if folder.is_file():
        return _in_file(folder)
    if not (folder / "model_index.json").is_file():
        raise MnemonError(
            f"There is no base '{name}' to plan for: give 'world', a diffusers folder (its configs are enough), or one "
            f"of {', '.join(shipped_configs())}."
        )
    return _in_folder(name, folder)


def _sizes() -> Any:
    return files("mnemon.planning") / "sizes"


def _shipped(name: str) -> ModelConfigs:
    value = json.loads((_sizes() / f"{name}.json").read_text(encoding="utf-8"))
    parts = {key: (*part["class"], part["config"]) for key, part in value["parts"].items()}
    return ModelConfigs(
        name, family_of(value["pipeline"], name), value["options"], parts, (value["of"], *value["source"])
    )


def _in_folder(name: str, folder: Path) -> ModelConfigs:
    index = _read(folder / "model_index.json")
    family = family_of(index.get("_class_name"), name)
    given = {part: index.get(part) for part in (*family.components, "scheduler")}
    parts = {part: (*origin, _read(_config(folder / part))) for part, origin in given.items() if origin and any(origin)}
    switches: dict[str, Any] = {
        key: index[key] for key in ("is_distilled", "force_zeros_for_empty_prompt") if key in index
    }
    return ModelConfigs(name, family, switches, parts, (str(folder),))


def _in_file(path: Path) -> ModelConfigs:
    family, parts, switches = single_file_configs(path)
    return ModelConfigs(str(path), family, switches, parts, (str(path),))


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


def _module(library: str, name: str, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    cls = getattr(import_module(library), name, None) if library in ("diffusers", "transformers") else None
    if cls is None:
        raise MnemonError(f"The base has a part {library}.{name}, which the installed libraries do not have.")
    if not issubclass(cls, nn.Module):  # a scheduler
        return cls.from_config(dict(config))
    with device:
        if library == "diffusers":
            return cls.from_config(dict(config)).to(device, dtype)
        return cls(cls.config_class.from_dict(dict(config))).to(device, dtype)
