"""Files in every spelling: each tensor is carried or named, and each change is what its definition says."""

import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mnemon.errors import MnemonError
from mnemon.export import ImportedAdapter, read_adapter
from mnemon.models import Base
from tests.export.layouts import Layout, layouts
from tests.export.originals import original_layouts
from tests.tiny import tiny_sd_base, tiny_sdxl_base
from tests.tiny_transformers import PIPELINES, tiny_base

FAMILIES = ("sd", "sdxl", *PIPELINES)
MUTATIONS = int(os.environ.get("MNEMON_FUZZ", "24"))
"""Files that the fuzz reads, over all families."""
GARBAGE = (
    "",
    "x",
    ".",
    "..",
    "_",
    ".weight",
    "lora_",
    ".alpha",
    "\N{OGHAM SPACE MARK}",
    "dora_scale",
    ".diff",
    "[0]",
    "(",
)


def base_of(family: str) -> Base:
    return {"sd": tiny_sd_base, "sdxl": tiny_sdxl_base}.get(family, lambda: tiny_base(family))()


def all_layouts(base: Base) -> list[Layout]:
    return [*layouts(base), *original_layouts(base)]


def read(
    tensors: dict[str, Tensor], base: Base, folder: Path, header: dict[str, str], partial: bool
) -> ImportedAdapter:
    file = folder / "lora.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file, metadata=header or None)
    return read_adapter([file], base, partial)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_spelling_is_carried_as_defined(family: str, tmp_path: Path) -> None:
    base = base_of(family)
    for layout in all_layouts(base):
        adapter = read(layout.tensors, base, tmp_path, layout.header, partial=False)
        (account,) = adapter.accounts
        assert account.carried.keys() == layout.tensors.keys(), layout.title
        assert adapter.deltas.keys() == layout.changes.keys(), layout.title
        for target, change in layout.changes.items():
            difference = adapter.deltas[target].matrix() - change
            assert difference.norm() <= 1e-5 * change.norm(), (layout.title, target)
        assert (adapter.tokens or {}).keys() == layout.vectors.keys()
        for encoder, vectors in layout.vectors.items():
            assert adapter.tokens is not None and torch.equal(adapter.tokens[encoder], vectors)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_key_renamed_or_gone_nothing_is_lost_silently(family: str, tmp_path: Path) -> None:
    base, rng = base_of(family), random.Random(f"{family} 5")
    files = [(layout, read(layout.tensors, base, tmp_path, layout.header, False)) for layout in all_layouts(base)]
    for _ in range(-(-MUTATIONS // len(FAMILIES))):
        layout, whole = rng.choice(files)
        key = rng.choice(sorted(layout.tensors))
        renamed = rng.choice((None, mutated(key, rng), rng.choice(sorted(layout.tensors)) + rng.choice(GARBAGE)))
        tensors = {name: tensor for name, tensor in layout.tensors.items() if name not in (key, renamed)}
        if renamed:
            tensors[renamed] = layout.tensors[key]
        check(layout, whole, tensors, {key, renamed}, base, tmp_path)


def mutated(key: str, rng: random.Random) -> str:
    """The key with a piece cut out, put in, or doubled."""
    first, last = sorted(rng.randrange(len(key) + 1) for _ in range(2))
    middle = rng.choice(("", key[first:last] * 2, rng.choice(GARBAGE)))
    return key[:first] + middle + key[last:] or "x"


def check(
    layout: Layout,
    whole: ImportedAdapter,
    tensors: dict[str, Tensor],
    touched: set[str | None],
    base: Base,
    folder: Path,
) -> None:
    about = (layout.title, touched)
    try:
        adapter = read(tensors, base, folder, layout.header, partial=True)
    except MnemonError as error:  # one sentence, about the file
        assert "lora.safetensors" in str(error), about
        return
    (account,), (before,) = adapter.accounts, whole.accounts
    assert account.carried.keys() | account.left.keys() == tensors.keys(), about
    assert not account.carried.keys() & account.left.keys(), about
    for target, delta in whole.deltas.items():
        keys = {key for key, where in before.carried.items() if target in where.split(" and ")}
        if target not in adapter.deltas:
            assert keys & tensors.keys() <= account.left.keys() and keys & touched | account.left.keys(), about
        elif not keys & touched and not any(target in account.carried.get(key or "", "") for key in touched):
            assert torch.equal(adapter.deltas[target].matrix(), delta.matrix()), about
    if account.left:
        with pytest.raises(MnemonError, match="cannot be imported"):
            read(tensors, base, folder, layout.header, partial=False)
