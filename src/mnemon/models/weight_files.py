"""The weights of a diffusers folder: which files of a part are read, and what is said of those that cannot be."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mnemon.errors import MnemonError

WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.([A-Za-z]\w*))?(?:-\d+-of-\d+)?(?:\.([A-Za-z]\w*))?\.safetensors"
)
"""Weights, whole or a shard, perhaps with a variant such as `fp16`, `bf16`, `ema` or `non_ema` in their names."""
SHARD = re.compile(r"-\d+-of-\d+\.")
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
PLAIN = ""


def variants(folder: Path, component: str) -> dict[str, list[Path]]:
    """The weights of one part of a pipeline folder by variant, shards in order; `PLAIN` is the one without a name."""
    found: dict[str, list[Path]] = {}
    for path in sorted((folder / component).glob("*.safetensors")):
        if match := WEIGHTS.fullmatch(path.name):
            found.setdefault(match[1] or match[2] or PLAIN, []).append(path)
    return found


def chosen_variants(folder: Path, components: Iterable[str], asked: str = PLAIN) -> dict[str, str]:
    """For each part the variant to read: the one asked for where there is such, else the plain one, else the only one.

    Raises:
        MnemonError: a part has no weights, several variants and none of them plain, or no part has the one asked for.
    """
    found = {component: variants(folder, component) for component in components}
    if asked and not any(asked in own for own in found.values()):
        raise MnemonError(
            f"'{folder}' has no variant '{asked}': {_listed(name for own in found.values() for name in own)}."
        )
    return {component: _chosen(folder / component, own, asked) for component, own in found.items()}


def check_whole(paths: Iterable[Path]) -> None:
    """Refuse a file that is no whole safetensors file.

    Raises:
        MnemonError: it is damaged, cut short or a Git LFS pointer.
    """
    for path in paths:
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise MnemonError(
                f"'{path}' is damaged, cut short or a Git LFS pointer ({str(error).splitlines()[0]}): fetch it again."
            ) from error


def check_index(part: Path, paths: Sequence[Path], variant: str = PLAIN) -> None:
    """Refuse shards whose index, which says what is in each, is missing, damaged, or names others.

    Args:
        part: the folder of one part of a pipeline.
        paths: its weights of the `variant`.

    Raises:
        MnemonError: as said.
    """
    if not all(SHARD.search(path.name) for path in paths):
        return
    named = {f"{stem}.safetensors.index.json" for stem in ("model", "diffusion_pytorch_model")}
    found = part.glob("*.safetensors.index*.json")
    own = [path for path in found if (f".{variant}." in path.name if variant else path.name in named)]
    if not own:
        raise MnemonError(f"'{part}' has shards of weights and no index of them, *.safetensors.index.json: fetch it.")
    for index in own:
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            names = set(content["weight_map"].values()) if content["metadata"] is not None else set()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise MnemonError(f"'{index}', which says what is in each shard, is damaged: fetch it again.") from None
        if missing := sorted(str(name) for name in names if not (part / str(name)).is_file()):
            raise MnemonError(
                f"'{part}' lacks {len(missing)} of the shards that its index names, such as '{missing[0]}': fetch them."
            )


def _chosen(part: Path, found: dict[str, list[Path]], asked: str) -> str:
    for variant in (asked, PLAIN):
        if variant in found:
            return variant
    if len(found) > 1:
        raise MnemonError(
            f"'{part}' has no plain weights, but {_listed(found)}: say which with '{part.parent}:{min(found)}', for "
            "example."
        )
    if not found:
        raise _no_weights(part)
    return next(iter(found))


def _listed(names: Iterable[str]) -> str:
    known = ["plain weights" if name == PLAIN else f"the variant {name}" for name in dict.fromkeys(names)]
    return "there are " + " and ".join(known) if known else "there are no weights at all"


def _no_weights(part: Path) -> MnemonError:
    pickles = [path for pattern in PICKLES for path in part.glob(pattern)]
    if pickles:
        return MnemonError(
            f"'{pickles[0]}' is a pickle, which can run code when opened; mnemon reads safetensors only. Choose a "
            "checkpoint with safetensors, or, if you trust this one, convert it once with diffusers: "
            "DiffusionPipeline.from_pretrained(folder).save_pretrained(new_folder)."
        )
    there = ", ".join(sorted(path.name for path in part.glob("*"))[:8]) or "nothing"
    return MnemonError(f"'{part}' has no weights: expected a *model.safetensors file there; there is {there}.")
