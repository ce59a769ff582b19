"""The model card of the built-in base: recipe, seed, time, figures and gates."""

import json
from pathlib import Path

from mnemon.files import write_json, write_text
from mnemon.world.recipe.gates import GATES, misses

_HEAD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [text-to-image, stable-diffusion, mnemon]
---

# The built-in base of mnemon

A small latent diffusion model of the Stable Diffusion classes (`AutoencoderKL`, `CLIPTextModel`,
`UNet2DConditionModel`), trained from scratch on pictures that `mnemon.world` draws: 64 × 64 pixels, twelve nouns, ten
colours, five patterns, nine places. It is for trying, testing and comparing methods of continual personalization on a
laptop; it draws nothing but its world. It opens with `StableDiffusionPipeline.from_pretrained(folder)`.

Made by `mnemon base build --seed {seed}`: {minutes:.0f} minutes of training on {machine}.

## Figures

Measured on prompts, seeds and renders that training never saw, by a judge trained apart: another seed, other renders.

| figure | measured | gate | |
| --- | --- | --- | --- |
"""
_FOOT = """
## Besides the pipeline

`encoders/judge` (attributes, and identity: the same thing again in another pose and place), `encoders/clip_image` and
`encoders/clip_text` (a small CLIP; the pipeline's text model started as its text side). Weights are stored in half
precision, those of `clip_image` in 8 bits. `figures.json` holds figures, recipe and seconds a stage.

## Limits

Pictures are soft at edges; the smaller of two things loses its pattern first. Words outside the world's vocabulary are
spelled letter by letter and mean nothing to it.
"""


def write_card(folder: Path, more: dict[str, float]) -> dict[str, float]:
    """Add figures to `figures.json` and write `README.md` from it; returns all figures."""
    facts = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    facts["figures"] |= more
    write_json(folder / "figures.json", facts)
    figures: dict[str, float] = facts["figures"]
    rows = [
        f"| {name} | {figures[name]:.3f} | {gate} | {'reached' if figures[name] >= gate else 'missed'} |"
        for name, gate in GATES.items()
        if name in figures
    ]
    missed = misses(figures)
    verdict = f"\nMissed: {'; '.join(missed)}.\n" if missed else "\nEvery gate is reached.\n"
    minutes = sum(facts["seconds"].values()) / 60
    head = _HEAD.format(seed=facts["recipe"]["seed"], minutes=minutes, machine=facts["machine"])
    write_text(folder / "README.md", head + "\n".join(rows) + "\n" + verdict + _FOOT)
    return figures
