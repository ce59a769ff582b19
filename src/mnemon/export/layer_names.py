"""The layer of a base that a name in a file stands for.

A name is a prefix and a path. Prefixes say which part of the pipeline is meant, paths are diffusers' or the authors'.
Dots and underscores are taken for one another, since kohya's names have underscores only: all of these are one layer

    unet.mid_block.attentions.0.proj_in             diffusers, PEFT
    lora_unet_mid_block_attentions_0_proj_in        kohya
    diffusion_model.middle_block.1.proj_in          ComfyUI
    unet.middle_block.1.proj_in                     OneTrainer
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import nn

from mnemon.adapters.checks import matrix_shape
from mnemon.export.naming import BY_WIDTH, CLIP, LANGUAGE_MODEL, naming_of, split_target
from mnemon.export.original_names import original_names, swaps_halves
from mnemon.models import Base
from mnemon.models.layers import every_layer

DENOISER = ("unet", "transformer", "diffusion_model", "model", "lora_unet", "lora_transformer", "oft_unet")
WRAPPERS = ("base_model_model", "lycoris", "module", "_orig_mod")
PEELED = tuple(f"{prefix}_" for prefix in (*DENOISER, *WRAPPERS))
"""What may stand before a path in the denoiser, in any combination: `transformer.base_model.model.`, `lycoris_unet_`"""
LANGUAGE_PATHS = ("", "model.", "language_model.", "model.language_model.", "language_model.model.")
"""What versions of transformers put before the layers of a language model."""


Targets = tuple[str, ...]
"""The target modules of a name; one whose halves change places is marked."""
SWAPPED = "swapped "
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A target module and the rows that are its own in the file's matrix, as (first, last + 1), one after another."""

    target: str
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Place:
    """Where the change of a layer of a file goes: the shape of the file's matrix, and its parts."""

    shape: tuple[int, int]
    parts: tuple[Part, ...]


class LayerNames:
    """Every name that a file may give to a layer of the base.

    Tables are made when a name asks for them: few files name the layers of text encoders, or norms.
    """

    def __init__(self, base: Base) -> None:
        self._base, self._naming = base, naming_of(base)
        self._layers = every_layer(base)
        self._prefixes = {
            encoder.name: self._encoder_prefix(encoder.name, number)
            for number, encoder in enumerate(base.encoders, start=1)
        }
        self._encoders: dict[str, dict[str, Targets]] = {}

    def find(self, name: str) -> Place | str | None:
        """Where a layer's change goes; the class of a module whose weights cannot be changed, such as a norm; or None
        for a name that the base does not have."""
        targets = self._find(name.replace(".", "_"), self._encoder, self._denoiser)
        if targets is not None:
            return self._place(targets)
        return self._find(name.replace(".", "_"), self._unchangeable.__getitem__, self._unchangeable[""])

    def _find(self, name: str, encoder: Callable[[str], Mapping[str, T]], denoiser: Mapping[str, T]) -> T | None:
        for part, prefix in self._prefixes.items():
            match = prefix.match(name)
            if match and (found := encoder(part).get(name[match.end() :])):
                return found
        return _peeled(name, denoiser)

    def _encoder(self, part: str) -> dict[str, Targets]:
        """The names of a text encoder's layers without their prefix."""
        if part not in self._encoders:
            paths = self._paths(part)
            self._encoders[part] = {
                name: (target,) for path, target in paths.items() for name in self._spellings(part, path)
            }
        return self._encoders[part]

    @cached_property
    def _denoiser(self) -> dict[str, Targets]:
        paths = self._paths(self._naming.denoiser)
        names = {name: (path,) for path in paths for name in self._spellings(self._naming.denoiser, path)}
        originals = original_names(self._base, {path: self._layers[path] for path in paths})
        swapped = {path for path in paths if swaps_halves(self._base.denoiser, path)}
        return names | {
            _underscored(name): (SWAPPED + targets[0],) if targets[0] in swapped else targets
            for name, targets in originals.items()
        }

    @cached_property
    def _unchangeable(self) -> dict[str, dict[str, str]]:
        """Part, "" for the denoiser -> name -> class of a module with weights that is no `Layer`."""
        models = {"": self._base.denoiser} | {encoder.name: encoder.model for encoder in self._base.encoders}
        return {part: self._named(part, _other_modules(model)) for part, model in models.items()}

    def _named(self, part: str, kinds: Iterable[tuple[str, str]]) -> dict[str, str]:
        return {name: kind for path, kind in kinds for name in self._spellings(part, path)}

    def _paths(self, part: str) -> dict[str, str]:
        """Path -> target module, of a part of the pipeline."""
        split = ((split_target(self._naming, target), target) for target in self._layers)
        return {path: target for (of, path), target in split if of == part}

    def _spellings(self, part: str, path: str) -> Iterable[str]:
        return {_underscored(spelling) for spelling in _spellings(self._naming.encoders.get(part), path)}

    def _place(self, targets: Targets) -> Place:
        parts, start, width = [], 0, 0
        for target in targets:
            name = target.removeprefix(SWAPPED)
            rows, width = matrix_shape(self._layers[name])
            middle, stop = start + rows // 2, start + rows
            parts.append(Part(name, ((start, stop),) if name == target else ((middle, stop), (start, middle))))
            start = stop
        return Place((start, width), tuple(parts))

    def _encoder_prefix(self, encoder: str, number: int) -> re.Pattern[str]:
        """`text_encoder_2`, `lora_te2`, and ComfyUI's `text_encoders.clip_g.transformer`. T5 is kohya's third, whatever
        its place in the pipeline; a first encoder needs no number."""
        kind = self._naming.encoders[encoder]
        own = "|".join(encoder_keys(kind))
        numbers = [str(number), *(["3"] if kind == "t5xxl" else []), *([""] if number == 1 else [])]
        prefixes = [encoder, *(f"lora_te{one}" for one in numbers), rf"(?:text_encoders_)?(?:{own})(?:_transformer)?"]
        wrapped = f"(?:(?:{'|'.join(WRAPPERS)})_)*"
        return re.compile(rf"{wrapped}(?:{'|'.join(prefixes)})_{wrapped}")


def encoder_keys(kind: str) -> tuple[str, ...]:
    """What files call a text encoder of ComfyUI's name `kind`, or its vectors."""
    if kind == LANGUAGE_MODEL:
        return tuple(BY_WIDTH.values())
    return {"t5xxl": ("t5xxl", "t5"), "clip_h": ("clip_h", "clip_l")}.get(kind, (kind,))


def _spellings(kind: str | None, path: str) -> Iterable[str]:
    """The paths that files have for a layer of the denoiser, or of a text encoder of ComfyUI's name `kind`."""
    if kind in CLIP:
        path = path.removeprefix("text_model.")
        return path, f"text_model.{path}"
    if kind == LANGUAGE_MODEL:
        inner = re.sub(r"^(model\.)?(language_model\.)?(?=layers\.)", "", path)
        return (path, *(f"{before}{inner}" for before in LANGUAGE_PATHS)) if inner.startswith("layers.") else [path]
    return (path, path.removesuffix(".0")) if path.endswith(".to_out.0") else [path]


def _peeled(name: str, names: Mapping[str, T]) -> T | None:
    """What the name stands for, without any of the prefixes."""
    if found := names.get(name):
        return found
    rests = (name.removeprefix(prefix) for prefix in PEELED if name.startswith(prefix))
    return next((found for rest in rests if (found := _peeled(rest, names))), None)


def _underscored(name: str) -> str:
    return name.replace(".", "_")


def _other_modules(model: nn.Module) -> Iterator[tuple[str, str]]:
    for path, module in model.named_modules():
        if path and not isinstance(module, nn.Linear | nn.Conv2d) and module._parameters:
            yield path, type(module).__name__
