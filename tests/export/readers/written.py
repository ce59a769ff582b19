"""The files that readers are given: for each family a tiny base, several contents, each in the family's LoRA formats.

    python -m tests.export.readers.written FOLDER FAMILY

SD 1.x and SDXL have their published structure, a tenth as wide: readers have it built in.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from mnemon.adapters import Delta, merge
from mnemon.export import RankSelection, export
from mnemon.export.checkpoint import PREFIXES, original_unet
from mnemon.export.factors import truncated_svd
from mnemon.export.naming import CLIP, Naming, naming_of, split_target
from mnemon.export.selection import select
from mnemon.library import Library
from mnemon.methods import method_from
from mnemon.methods.base import TrainedConcept
from mnemon.models import FAMILIES
from mnemon.models.base import Base
from mnemon.models.layers import every_layer
from tests.export.comfyui.bases import tiny
from tests.export.conftest import concept, of_ranks
from tests.tiny import tiny_sd, tiny_sdxl

TRUNCATED = RankSelection(rank=4)
CONTENTS: dict[str, tuple[list[str], RankSelection | None, torch.dtype]] = {
    "low rank": (["rex"], None, torch.float32),
    "every layer": (["wide"], None, torch.float32),
    "two concepts": (["rex", "tom"], None, torch.float32),
    "full rank": (["masked"], None, torch.float32),
    "truncated": (["masked"], TRUNCATED, torch.float32),
    "16 bits": (["tom"], None, torch.float16),
    "T5 or language model": (["reader"], None, torch.float32),
}
"""Content -> concepts, rank selection and precision of the export. The last one only where there are such encoders."""
UNETS: dict[str, dict[str, Any]] = {
    "sd": {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 32, "attention_head_dim": 8},
    "sdxl": {
        "block_out_channels": (32, 64, 128),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [1, 1, 2],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def main(root: Path, family: str) -> None:
    base = base_of(family)
    folder = root / "base"
    base.pipeline().save_pretrained(folder)
    if family in PREFIXES:
        save_file(
            {key: weight.contiguous() for key, weight in original_unet(base.denoiser).items()},
            folder / "original.safetensors",
        )
    library = Library.create(root / "library", base, method_from("lora"))
    for one in concepts(base, naming_of(base)):
        library.commit(one)
    for content, (names, rank_selection, dtype) in CONTENTS.items():
        if not set(names) <= set(library.names()):
            continue
        deltas = select(library, base, names).deltas
        place = root / content
        place.mkdir()
        save_file(merged(base, truncated(deltas, rank_selection)), place / "merged.safetensors")
        for kind in naming_of(base).formats:
            export(library, base, place / kind, names, kind=kind, rank_selection=rank_selection, dtype=dtype)


def base_of(family: str) -> Base:
    if family not in UNETS:
        return tiny(family)
    pipeline: Any = {"sd": tiny_sd, "sdxl": tiny_sdxl}[family]()
    torch.manual_seed(1)
    pipeline.register_modules(unet=UNet2DConditionModel(sample_size=8, layers_per_block=2, **UNETS[family]))
    base = FAMILIES[family](pipeline, name=f"tiny {family}")
    assert isinstance(base, Base)
    return base


def concepts(base: Base, naming: Naming) -> list[TrainedConcept]:
    """<tom> changes half of the layers of <rex>, at another rank; <wide> the whole denoiser and CLIP; <reader> some of
    the other encoders."""
    parts = {target: split_target(naming, target)[0] for target in every_layer(base)}
    texts = {part for part in naming.encoders if naming.encoders[part] not in CLIP}
    wide = [target for target in parts if parts[target] not in texts]
    reader = [target for target in parts if parts[target] in texts][:6]
    made = {
        "tom": dict.fromkeys(list(base.target_modules())[::2], 3),
        "wide": {target: 1 + index % 4 for index, target in enumerate(wide)},
        "reader": dict.fromkeys(reader, 2),
    }
    ranked = [named(of_ranks(base, ranks), name) for name, ranks in made.items() if ranks]
    return [concept(base, "rex", 1), concept(base, "masked", 2, "masked"), *ranked]


def named(one: TrainedConcept, name: str) -> TrainedConcept:
    return TrainedConcept(name, one.class_noun, one.deltas, one.tokens)


def truncated(deltas: Mapping[str, Delta], rank_selection: RankSelection | None) -> dict[str, Delta]:
    """The change that a file is to hold: the whole, or the closest one of a lower rank."""
    if rank_selection is None:
        return dict(deltas)
    return {target: truncated_svd(delta.matrix(), rank_selection) for target, delta in deltas.items()}


def merged(base: Base, deltas: Mapping[str, Delta]) -> dict[str, Tensor]:
    """The changed weights, by their names in diffusers' pipeline."""
    layers = every_layer(base)
    modules = {part: module for part, module in base.pipeline().components.items() if isinstance(module, nn.Module)}
    names = {
        id(parameter): f"{part}.{name}" for part, one in modules.items() for name, parameter in one.named_parameters()
    }
    named_layers = {target: names[id(layers[target].weight)] for target in deltas}
    with merge(layers, deltas):
        return {name: layers[target].weight.detach().clone().contiguous() for target, name in named_layers.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
