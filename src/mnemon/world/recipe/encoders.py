"""Stage 1 of the recipe: image encoders of the world.

The teacher guides the autoencoder and the denoiser. The judge, from another seed and on other renders, evaluates them,
and ships as identity encoder and attribute classifier. Both learn attributes by cross-entropy and identity by a
contrastive loss over two poses and places of one thing. The judge also classifies which nouns are in an image.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mnemon.world.attributes import ATTRIBUTES
from mnemon.world.encoder import ImageEncoder, contrastive_loss
from mnemon.world.recipe.fit import Schedule, channels_last, fit, random_rows
from mnemon.world.recipe.images import Images, to_input

PRESENT = "present"
"""The head with one logit per noun: whether it is in the image."""


def new_encoder(seed: int, *, present: bool) -> ImageEncoder:
    torch.manual_seed(seed)
    heads = {name: len(classes) for name, classes in ATTRIBUTES.items()}
    if present:
        heads[PRESENT] = len(ATTRIBUTES["noun"])
    return channels_last(ImageEncoder(heads))


def train_encoder(
    name: str, folder: Path, scenes: Images, pairs: Images, *, seed: int, steps: int, batch: int, present: bool
) -> tuple[ImageEncoder, float]:
    """An encoder and the seconds of training. `scenes` have labels, `pairs` show each thing twice; a step has `batch`
    scenes and three quarters as many pairs."""
    encoder = new_encoder(seed, present=present)
    couples = batch * 3 // 4
    labelled_rows = torch.arange(len(scenes)) if present else (scenes.labels["noun"] >= 0).nonzero().flatten()

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = labelled_rows[random_rows(generator, len(labelled_rows), batch)]
        couple = random_rows(generator, len(pairs) // 2, couples)
        pixels = torch.cat([scenes.pixels[rows], pairs.pixels[couple * 2], pairs.pixels[couple * 2 + 1]])
        with torch.autocast("cpu", torch.bfloat16):
            pooled = encoder.pool(encoder.features(to_input(pixels))[-1])
            logits = {key: head(pooled[:batch]).float() for key, head in encoder.heads.items()}
            embedding = encoder.project(pooled[batch:]).float()
        embedding = torch.nn.functional.normalize(embedding, dim=-1)
        classes = torch.stack(
            [cross_entropy(logits[key], scenes.labels[key][rows], ignore_index=-1) for key in ATTRIBUTES]
        ).sum()
        if present:
            classes = classes + 4 * binary_cross_entropy_with_logits(logits[PRESENT], scenes.present[rows].float())
        instance = contrastive_loss(embedding[:couples], embedding[couples:])
        return classes + instance, {"classes": classes.item(), "instance": instance.item()}

    seconds = fit(name, folder, {"encoder": encoder}, loss, Schedule(steps, 3e-3, warmup=200), seed=seed)
    return encoder.eval().requires_grad_(False), seconds


@torch.no_grad()
def encoder_figures(encoder: ImageEncoder, scenes: Images, pairs: Images) -> dict[str, float]:
    """Accuracy of every head on held-out images, and top-1 retrieval of a thing among 200."""
    rows = (scenes.labels["noun"] >= 0).nonzero().flatten()[:1000]
    logits = encoder.classify(to_input(scenes.pixels[rows]))
    figures = {}
    for name in ATTRIBUTES:
        truth = scenes.labels[name][rows]
        known = truth >= 0
        figures[name] = float((logits[name].argmax(1)[known] == truth[known]).float().mean())
    if PRESENT in encoder.heads:
        two = (scenes.present.sum(1) == 2).nonzero().flatten()[:500]
        figures["two_nouns"] = float(both_nouns(encoder, to_input(scenes.pixels[two]), scenes.present[two]).mean())
    figures["instance_top1_of_200"] = instance_top1(encoder, pairs)
    return figures


@torch.no_grad()
def both_nouns(encoder: ImageEncoder, images: Tensor, present: Tensor) -> Tensor:
    """(n,) 1 where the two most likely nouns of an image are those marked in `present` (n, nouns)."""
    likeliest = encoder.classify(images)[PRESENT].topk(2, dim=1).indices
    return present.gather(1, likeliest).sum(1).eq(2).float()


@torch.no_grad()
def instance_top1(encoder: ImageEncoder, pairs: Images, among: int = 200) -> float:
    """Share of images whose nearest of `among` other renders (or as many as there are) shows the same thing."""
    hits, among = [], min(among, len(pairs) // 2)
    for start in range(0, len(pairs) // 2 - among + 1, among):
        rows = torch.arange(start, start + among)
        left, right = encoder(to_input(pairs.pixels[rows * 2])), encoder(to_input(pairs.pixels[rows * 2 + 1]))
        hits.append(((left @ right.T).argmax(1) == torch.arange(among)).float().mean())
    return float(torch.stack(hits).mean())
