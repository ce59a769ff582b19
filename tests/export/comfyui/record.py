"""Gives our files to ComfyUI's own loader, checks what it makes of them, and records the names of layers it maps.

    python -m tests.export.comfyui.record CHECKOUT [FAMILY ...]

CHECKOUT is a folder with ComfyUI's repository; its requirements einops, torchsde, scipy, trampoline and sentencepiece
have to be importable. For each family:

1. The tiny base's concepts are exported, loaded as ComfyUI's LoRA node loads them, and each weight of its model is
   compared with the same weight of a model that got the base's weights with the concept folded in. Not one warning.
2. The embedding files are read by its function, and compared.
3. A single-file checkpoint (SD 1.x, SDXL) is compared weight by weight.
4. At the published size, recognised by ComfyUI itself, the names of layers that it maps are written to
   `names/FAMILY.txt`, those of our formats. `test_names.py` holds exports to them from then on.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mnemon.adapters import Delta, Dense, LowRank, merge
from mnemon.adapters.checks import matrix_shape
from mnemon.export import RankSelection, export
from mnemon.export.checkpoint import PREFIXES, original_unet
from mnemon.export.lora import LoraFile, layer_keys
from mnemon.export.naming import COMFY, DIFFUSERS, KOHYA, Naming, mapped_by_comfyui, naming_of
from mnemon.export.selection import select
from mnemon.library import Library
from mnemon.methods import method_from
from mnemon.methods.base import TrainedConcept
from mnemon.models.base import Base
from mnemon.models.layers import every_layer
from tests.export.comfyui.bases import ALL, real, tiny
from tests.export.comfyui.loading import ComfyUI, Parts
from tests.export.conftest import concept

NAMES = Path(__file__).with_name("names")
FILES: tuple[tuple[str, list[str], str, RankSelection | None], ...] = (
    ("rex", ["rex"], COMFY, None),
    ("full rank as .diff", ["tom"], COMFY, None),
    ("two merged", ["rex", "ink"], COMFY, None),
    ("full rank by 4 ranks", ["tom"], COMFY, RankSelection(rank=4)),
    ("every layer", ["ink"], COMFY, None),
    ("rex in diffusers' format", ["rex"], DIFFUSERS, None),
)
"""Title, concepts, format, rank selection; COMFY stands for kohya's where there is a U-Net."""
ORIGINAL = ("input_blocks", "middle_block", "output_blocks", "out_", "time_embed_", "label_emb")
"""How the original names of a U-Net begin."""
WITHIN = 1e-5
"""Largest difference of a weight; the changes are as large as the weights."""


def main(checkout: Path, families: list[str]) -> None:
    comfy = ComfyUI(checkout)
    for family in families:
        base = real(family)
        mapped = comfy.names(comfy.denoiser(parts_of(base)), comfy.text_encoders(parts_of(base)))
        record(base, mapped)
        with tempfile.TemporaryDirectory() as folder:
            check(comfy, tiny(family), Path(folder))


def record(base: Base, mapped: set[str]) -> None:
    naming = naming_of(base)
    names = sorted(name for name in mapped if name.startswith(ours(base, naming)))
    NAMES.mkdir(exist_ok=True)
    (NAMES / f"{base.family}.txt").write_text("\n".join(names) + "\n")
    lacks = [target for target in every_layer(base) if not mapped_by_comfyui(naming, target)]
    assert not set(lacks) & set(base.target_modules())
    format = KOHYA if naming.kohya else COMFY
    for target, key in layer_keys(base, naming, format).items():
        assert (key in mapped) == (target not in lacks), target
    print(
        f"{base.family}: {len(names)} names; all {len(base.target_modules())} target modules and all but {len(lacks)} "
        f"of {len(every_layer(base))} layers are mapped"
    )


def ours(base: Base, naming: Naming) -> tuple[str, ...]:
    """How names of our format begin; a U-Net has others too, of the original's blocks."""
    if naming.kohya is None:
        return (naming.denoiser, *naming.encoders)
    children = (name for name, _ in base.denoiser.named_children())
    blocks = tuple(
        f"{naming.kohya[naming.denoiser]}_{name}" for name in (ORIGINAL if base.family == "sdxl" else children)
    )
    return blocks + tuple(naming.kohya[encoder] for encoder in naming.encoders)


def check(comfy: ComfyUI, base: Base, folder: Path) -> None:
    naming = naming_of(base)
    format = KOHYA if naming.kohya else COMFY
    library = Library.create(folder / "library", base, method_from("lora"))
    for one in (concept(base, "rex", 1, vectors=2), concept(base, "tom", 2, "dense"), wide(base, naming)):
        library.commit(one)
    parts = parts_of(base)
    denoiser, text = comfy.denoiser(parts), comfy.text_encoders(parts)
    plain = weights(comfy, denoiser, text, parts)
    for title, names, kind, rank_selection in FILES:
        kind = format if kind == COMFY else kind
        if kind == DIFFUSERS and naming.kohya:
            continue  # ComfyUI does not know these names
        made = export(library, base, folder / title, names, kind=kind, rank_selection=rank_selection)
        file = next(made.folder.glob("*.safetensors"))
        given, said = comfy.patched(denoiser, text, file)
        assert not said, said[:5]
        with merge(every_layer(base), changes(base, made.lora, select(library, base, names).deltas, rank_selection)):
            wanted = weights(comfy, denoiser, text, parts)
        weights(comfy, denoiser, text, parts)
        off = max((given.get(key, plain[key]) - wanted[key]).abs().max().item() for key in wanted)
        changed = sum(not torch.equal(wanted[key], plain[key]) for key in wanted)
        assert off <= WITHIN and changed == len(given), (off, changed, len(given))
        print(f"  {title}: {len(load_file(file))} keys, {changed} weights patched; off by {off:.1e} at most")
    embeddings(comfy, library, base, naming, folder / "rex" / "embeddings")
    if base.family in PREFIXES:
        checkpoint(comfy, library, base, folder / "checkpoint")


def changes(
    base: Base, lora: LoraFile | None, deltas: Mapping[str, Delta], rank_selection: RankSelection | None
) -> dict[str, Delta]:
    """What the file is to do: the selection's own change, or with a fit the closest of that rank."""
    assert lora is not None
    if rank_selection is None or rank_selection.rank is None:
        return dict(deltas)
    made: dict[str, Delta] = {}
    for target, delta in deltas.items():
        u, s, v = torch.linalg.svd(delta.matrix())
        made[target] = Dense(u[:, : rank_selection.rank] * s[: rank_selection.rank] @ v[: rank_selection.rank])
    return made


def checkpoint(comfy: ComfyUI, library: Library, base: Base, folder: Path) -> None:
    """The U-Net of a single file, under the names of ComfyUI's own model, and its values."""
    export(library, base, folder, ["rex"], kind="checkpoint")
    prefix = "model.diffusion_model."
    tensors = load_file(folder / "rex.safetensors")
    own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    parts = parts_of(base)
    model = comfy.denoiser(parts)
    with merge(every_layer(base), select(library, base, ["rex"]).deltas):
        comfy.fill(model, None, parts)
    wanted = model.diffusion_model.state_dict()
    assert own.keys() == wanted.keys() and all(torch.equal(own[key], wanted[key]) for key in wanted)
    print(f"  checkpoint: {len(own)} weights of the U-Net, all equal")


def wide(base: Base, naming: Naming) -> TrainedConcept:
    """A LoRA of every layer that ComfyUI maps, as others make them."""
    generator = torch.Generator().manual_seed(3)
    deltas = {}
    for target, layer in every_layer(base).items():
        if mapped_by_comfyui(naming, target):
            d_out, d_in = matrix_shape(layer)
            up, down = torch.randn(d_out, 2, generator=generator), torch.randn(2, d_in, generator=generator)
            deltas[target] = LowRank(0.1 * up, down, scale=0.7)
    return TrainedConcept("ink", None, deltas, concept(base, "ink", 4).tokens)


def parts_of(base: Base) -> Parts:
    encoders = {naming_of(base).encoders[encoder.name]: encoder.model for encoder in base.encoders}
    original = original_unet(base.denoiser) if base.family in PREFIXES else {}
    return Parts(base.family, base.denoiser, encoders, original)


def weights(comfy: ComfyUI, denoiser: Any, text: Any, parts: Parts) -> dict[str, Tensor]:
    """The base's weights, as they are now, in ComfyUI's models."""
    filled = comfy.fill(denoiser, text, parts)
    states = {**denoiser.state_dict(), **(text.state_dict() if text is not None else {})}
    return {key: states[key].clone() for key in filled}


def embeddings(comfy: ComfyUI, library: Library, base: Base, naming: Naming, folder: Path) -> None:
    (one,) = (one for one in library.learned() if one.name == "rex")
    for encoder, vectors in one.tokens.items():
        key = naming.encoders[encoder]
        read = comfy("sd1_clip").load_embed("rex", str(folder), vectors.shape[1], key)
        assert torch.equal(read, vectors), key
    print(f"  embedding: {', '.join(naming.encoders[encoder] for encoder in one.tokens)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(ALL))
