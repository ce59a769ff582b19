"""The recipe of the built-in backbone: a small vision transformer that names noun, colour and pattern of plain renders.

    python -m mnemon.world.recipe.backbone --work backbone-work

A killed run goes on from its last checkpoint when the command is given again. The result is a `transformers` folder: no
style and no colour without a name is in its training, so renditions and instances are new to it.
"""

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from mnemon.errors import MnemonError
from mnemon.files import set_default_modes, write_json, write_text
from mnemon.world import backbone_folder
from mnemon.world.attributes import ATTRIBUTES
from mnemon.world.recipe import images as rendering
from mnemon.world.recipe.fit import Schedule, fit, random_rows
from mnemon.world.recipe.images import Images, to_input

NAMED = ("noun", "colour", "pattern")
GATES = {"noun": 0.8, "colour": 0.9, "pattern": 0.75}
"""Accuracies on held-out renders below which the backbone is not written."""
_CARD = """---
license: apache-2.0
library_name: transformers
tags: [image-classification, mnemon]
---

# The built-in backbone of mnemon

A small vision transformer (`ViTModel`: {layers} blocks of width {width}, images of {side} pixels, patches of {patch},
{millions:.2f} million weights in half precision), for trying, testing and comparing methods of continual image
classification on a laptop. It was trained from scratch to name noun, colour and pattern of {count:,} images that
`mnemon.world` draws: one thing in a named colour each, never in a style. It knows nothing of photographs.

Made by `python -m mnemon.world.recipe.backbone --seed {seed}`: {minutes:.0f} minutes of training on {machine}.

Accuracy of the heads, which are not shipped, on {held_out:,} renders that training never saw:

| head | classes | accuracy | gate |
| --- | --- | --- | --- |
{rows}
"""


@dataclass(frozen=True)
class Recipe:
    """The shipped backbone was trained with the defaults."""

    seed: int = 1
    images: int = 20_000
    held_out: int = 2_000
    steps: int = 5_000
    batch: int = 32
    rate: float = 1e-3
    width: int = 128
    layers: int = 6
    heads: int = 4
    side: int = 40
    patch: int = 8


class Namer(nn.Module):
    """The backbone with a head for each attribute, on the class token."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        config = ViTConfig(
            hidden_size=recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=4 * recipe.width,
            image_size=recipe.side,
            patch_size=recipe.patch,
        )
        self.backbone = ViTModel(config, add_pooling_layer=False)
        self.heads = nn.ModuleDict({name: nn.Linear(recipe.width, len(ATTRIBUTES[name])) for name in NAMED})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (images, classes) by attribute, of images (images, 3, side, side) in -1..1."""
        token = self.backbone(pixel_values=images).last_hidden_state[:, 0]
        return {name: head(token) for name, head in self.heads.items()}


def build(out: Path, work: Path, recipe: Recipe) -> dict[str, float]:
    """Train the backbone into `out` and return its accuracies on held-out renders.

    Raises:
        MnemonError: one of them is below its gate.
    """
    training = rendering.plain(work, recipe.seed, recipe.images)
    views = _resized(training.pixels, round(recipe.side * 256 / 224))
    namer = Namer(recipe)
    schedule = Schedule(recipe.steps, recipe.rate, warmup=200, weight_decay=0.05)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = random_rows(generator, len(views), recipe.batch)
        logits = namer(to_input(_cropped(views[rows], recipe.side, generator)))
        losses = {name: cross_entropy(logits[name], training.labels[name][rows]) for name in NAMED}
        return torch.stack(list(losses.values())).sum(), {name: value.item() for name, value in losses.items()}

    seconds = fit("backbone", work, {"namer": namer}, loss, schedule, seed=recipe.seed)
    figures = accuracies(namer.half().float().eval(), rendering.plain(work, recipe.seed + 1, recipe.held_out), recipe)
    if low := [name for name, gate in GATES.items() if figures[name] < gate]:
        raise MnemonError(f"The backbone names '{low[0]}' right in {figures[low[0]]:.1%} only: train it for longer.")
    _save(out, namer.backbone, recipe, figures, seconds)
    return figures


@torch.no_grad()
def accuracies(namer: Namer, images: Images, recipe: Recipe) -> dict[str, float]:
    """Share of right names by attribute, of the middle of each image."""
    edge = (round(recipe.side * 256 / 224) - recipe.side) // 2
    middle = _resized(images.pixels, round(recipe.side * 256 / 224))[:, edge:, edge:][:, : recipe.side, : recipe.side]
    parts = [namer(to_input(rows)) for rows in middle.split(256)]
    best = {name: torch.cat([part[name] for part in parts]).argmax(1) for name in NAMED}
    return {name: float((best[name] == images.labels[name]).float().mean()) for name in NAMED}


def _resized(pixels: Tensor, side: int) -> Tensor:
    """(n, 64, 64, 3) uint8 to (n, side, side, 3), as by Pillow's bilinear filter."""
    parts = [
        interpolate(rows.permute(0, 3, 1, 2), side, mode="bilinear", antialias=True) for rows in pixels.split(1000)
    ]
    return torch.cat(parts).permute(0, 2, 3, 1).contiguous()


def _cropped(views: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random square of each image, half of them mirrored."""
    room = views.shape[1] - side + 1
    tops, lefts = torch.randint(room, (2, len(views)), generator=generator).tolist()
    mirrored = (torch.rand(len(views), generator=generator) < 0.5).tolist()
    cut = [view[top : top + side, left : left + side] for view, top, left in zip(views, tops, lefts, strict=True)]
    return torch.stack([view.flip(1) if flip else view for view, flip in zip(cut, mirrored, strict=True)])


def _save(out: Path, backbone: nn.Module, recipe: Recipe, figures: dict[str, float], seconds: float) -> None:
    model: ViTModel = backbone.half()
    model.save_pretrained(out)
    # transformers opens a model in the precision that its config names.
    write_json(
        out / "config.json", json.loads((out / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
    )
    size = {"height": recipe.side, "width": recipe.side}
    ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(out)
    machine = f"{torch.get_num_threads()} CPU thread{'s' if torch.get_num_threads() > 1 else ''} ({platform.machine()})"
    facts = {"figures": figures, "recipe": asdict(recipe), "seconds": seconds, "machine": machine}
    write_json(out / "figures.json", facts)
    rows = "\n".join(
        f"| {name} | {len(ATTRIBUTES[name])} | {figures[name]:.1%} | {GATES[name]:.0%} |" for name in NAMED
    )
    card = _CARD.format(
        layers=recipe.layers, width=recipe.width, side=recipe.side, patch=recipe.patch, count=recipe.images,
        millions=sum(one.numel() for one in model.parameters()) / 1e6, seed=recipe.seed, minutes=seconds / 60,
        machine=machine, held_out=recipe.held_out, rows=rows,
    )  # fmt: skip
    write_text(out / "README.md", card)
    set_default_modes(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("backbone-work"), help="Images and checkpoints.")
    parser.add_argument("--out", type=Path, default=backbone_folder(), help="Folder to write.")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print(build(given.out, given.work, Recipe(seed=given.seed)))


if __name__ == "__main__":
    main()
