"""A process that gives LoRA files to another tool's own code and says what became of them. Without mnemon.

    python -m tests.export.readers.TOOL [CHECKOUT] < jobs

Each line of the input is a job, {"family", "base": a pipeline's folder, "file": a LoRA file, "merged": the weights that
it is to give, by their names in diffusers}; each line of the output is the verdict on one.
"""

import json
import logging
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

WITHIN = 1e-3
"""Largest difference of a weight that counts as equal."""
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")


class Reader(ABC):
    """A tool that adds a LoRA file to a base."""

    version: str
    says = (logging.WARNING, r"(?!No LoRA keys associated to)")
    """From which level on its log counts as said, and how these messages begin: diffusers speaks of every part of the
    pipeline that a file does not change."""

    @abstractmethod
    def open(self, family: str, folder: Path) -> None:
        """Take the pipeline in `folder` as the base."""

    @abstractmethod
    def weights(self, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The base's weights under the tool's names, with those of `changed` (`unet.<path>.weight`) in their place."""

    @abstractmethod
    def read(self, file: Path) -> dict[str, Tensor]:
        """The weights that the tool has after reading the file, at least all those that it changes.

        Raises:
            Exception: the tool refuses the file.
        """


def serve(reader: Reader) -> None:
    base = ""
    for line in sys.stdin:
        job = json.loads(line)
        if base != job["base"]:
            base = job["base"]
            reader.open(job["family"], Path(base))
        print(json.dumps(verdict(reader, Path(job["file"]), load_file(job["merged"]))), flush=True)
        assert not any(name.split(".")[0] == "mnemon" for name in sys.modules)


def verdict(reader: Reader, file: Path, merged: Mapping[str, Tensor]) -> dict[str, Any]:
    """What became of a file: "right"; "refused"; "left": some weights stay as they are, the others are right; "wrong".

    `weights` is the number that the file is to change, `off` the largest difference from what they are to be, `said`
    what the tool said.
    """
    before, wanted = reader.weights({}), reader.weights(merged)
    with told(*reader.says) as said:
        try:
            given = reader.read(file)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            return {"verdict": "refused", "said": f"{type(error).__name__}: {reason}", "version": reader.version}
    changed = [name for name in wanted if not torch.equal(wanted[name], before[name])]
    distance = {name: (given.get(name, before[name]) - wanted[name]).abs().max().item() for name in wanted}
    wrong = [name for name in wanted if not distance[name] <= WITHIN]
    left = [name for name in wrong if torch.equal(given.get(name, before[name]), before[name])]
    absent = absent_weights(reader, merged) if len(changed) < len(merged) else 0
    kind = "wrong" if len(left) < len(wrong) else "left" if left or absent else "right"
    return {
        "verdict": kind,
        "weights": len(changed) + absent,
        "left": len(left) + absent,
        "wrong": len(wrong) - len(left),
        "off": max(distance.values(), default=0.0),
        "said": said[0][:300] if said else "",
        "version": reader.version,
    }


def absent_weights(reader: Reader, merged: Mapping[str, Tensor]) -> int:
    """The number of weights that the tool's models have no counterpart of."""
    before = reader.weights({})
    after = (reader.weights({name: weight}) for name, weight in merged.items())
    return sum(all(torch.equal(weights[name], before[name]) for name in before) for weights in after)


def opened(folder: Path) -> Any:
    if "ZImage" in (folder / "model_index.json").read_text():
        _narrow_embedder()
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def _narrow_embedder() -> None:
    """The tiny Z-Image's is as wide as ComfyUI's classes have it, which its config cannot say."""
    code: Any = import_module("diffusers.models.transformers.transformer_z_image")
    embedder = code.TimestepEmbedder
    code.TimestepEmbedder = lambda width, mid_size: embedder(width, mid_size=256)


def modules(pipeline: Any) -> dict[str, nn.Module]:
    """The parts of a pipeline that a LoRA can change."""
    found = {part: getattr(pipeline, part, None) for part in PARTS}
    return {part: module for part, module in found.items() if module is not None}


@contextmanager
def changed_weights(parts: Mapping[str, nn.Module], changed: Mapping[str, Tensor]) -> Iterator[None]:
    """The parts with weights of `changed` (`unet.<path>.weight`) in place of their own."""
    own = {f"{part}.{name}": weight for part, module in parts.items() for name, weight in module.state_dict().items()}
    kept = {name: own[name].clone() for name in changed}
    for name, weight in changed.items():
        own[name].copy_(weight)
    try:
        yield
    finally:
        for name, weight in kept.items():
            own[name].copy_(weight)


@contextmanager
def told(level: int, begins: str) -> Iterator[list[str]]:
    """What is logged from this level on and begins so."""
    said: list[str] = []
    handler = logging.Handler(level)
    handler.emit = lambda record: said.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    handler.addFilter(lambda record: re.match(begins, record.getMessage()) is not None)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)
