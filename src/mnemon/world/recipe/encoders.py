"""Stage 1 of the recipe: encoders that know the world's pictures.

The teacher guides the autoencoder and the denoiser. The judge, from another seed and on other renders, scores them,
and is shipped as the identity encoder and attribute classifier. Both learn attributes by cross-entropy and, by
contrast, to know one thing again in another pose and place.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnemon.world.encoder import PictureEncoder, contrastive_loss
from mnemon.world.recipe.fit import Schedule, draw, fit
from mnemon.world.recipe.pictures import ATTRIBUTES, Pictures, to_input


def new_encoder(seed: int) -> PictureEncoder:
    torch.manual_seed(seed)
    heads = {name: len(classes) for name, classes in ATTRIBUTES.items()}
    return PictureEncoder(heads).to(memory_format=torch.channels_last)


def train_encoder(
    name: str, folder: Path, singles: Pictures, pairs: Pictures, *, seed: int, steps: int = 1400
) -> tuple[PictureEncoder, float]:
    """An encoder and the seconds it took. `singles` gives the labels, `pairs` the instances."""
    encoder = new_encoder(seed)
    labelled = (singles.labels["noun"] >= 0).nonzero().flatten()

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = labelled[draw(generator, len(labelled), 64)]
        couple = draw(generator, len(pairs) // 2, 48)
        pixels = torch.cat([singles.pixels[rows], pairs.pixels[couple * 2], pairs.pixels[couple * 2 + 1]])
        with torch.autocast("cpu", torch.bfloat16):
            pooled = encoder.pool(encoder.features(to_input(pixels))[-1])
            logits = {key: head(pooled[:64]).float() for key, head in encoder.heads.items()}
            embedding = encoder.project(pooled[64:]).float()
        embedding = torch.nn.functional.normalize(embedding, dim=-1)
        classes = torch.stack(
            [cross_entropy(logits[key], singles.labels[key][rows], ignore_index=-1) for key in ATTRIBUTES]
        ).sum()
        instance = contrastive_loss(embedding[:48], embedding[48:])
        return classes + instance, {"classes": classes.item(), "instance": instance.item()}

    seconds = fit(name, folder, {"encoder": encoder}, loss, Schedule(steps, 3e-3, warmup=200), seed=seed)
    return encoder.eval().requires_grad_(False), seconds


@torch.no_grad()
def encoder_figures(encoder: PictureEncoder, singles: Pictures, pairs: Pictures) -> dict[str, float]:
    """Accuracy of every head on pictures not seen in training, and how often a thing is found among 200 others."""
    rows = (singles.labels["noun"] >= 0).nonzero().flatten()[:1000]
    logits = encoder.classify(to_input(singles.pixels[rows]))
    figures = {}
    for name in ATTRIBUTES:
        truth = singles.labels[name][rows]
        known = truth >= 0
        figures[name] = float((logits[name].argmax(1)[known] == truth[known]).float().mean())
    figures["instance_top1_of_200"] = instance_top1(encoder, pairs)
    return figures


@torch.no_grad()
def instance_top1(encoder: PictureEncoder, pairs: Pictures, among: int = 200) -> float:
    """Share of pictures whose nearest among `among` other renders is of the same thing."""
    hits = []
    for start in range(0, len(pairs) // 2 - among + 1, among):
        rows = torch.arange(start, start + among)
        left, right = encoder(to_input(pairs.pixels[rows * 2])), encoder(to_input(pairs.pixels[rows * 2 + 1]))
        hits.append(((left @ right.T).argmax(1) == torch.arange(among)).float().mean())
    return float(torch.stack(hits).mean())
