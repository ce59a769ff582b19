"""What the target modules read under given prompts, as Gram matrices of low rank.

For a U-Net these are the text features of the prompt, the same for every layer and independent of the image. In the
transformer families the text passes through the blocks, so each layer's inputs are sampled, on noise as the image.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mnemon.data.captions import captions_about
from mnemon.methods.importance import general_captions
from mnemon.models.base import Base

Factors = dict[str, Tensor]
"""F (d_in, k) by layer, with F F^T = the mean of e e^T over inputs e; under `TEXT` where all layers read the same."""
Weigh = Callable[[str, Tensor], Tensor]
"""Weights (rows,) of the inputs (rows, d_in) of a layer."""
TEXT = "text"
GENERAL, GENERAL_SAMPLED, OWN = 256, 64, 24
"""Prompts of diverse things (fewer where each takes a pass of the denoiser), and of each concept."""
ROWS = 2048
"""Inputs of a layer that count, sampled from all of them."""
ENERGY = 1 - 1e-4
"""The share of the Gram matrix's trace that its factor keeps."""


def alike(layer: str, rows: Tensor) -> Tensor:
    """Every input counts alike."""
    return rows.new_ones(len(rows))


def layer_of(base: Base, target: str) -> str:
    """The key of `Factors` for a target module: modules of one layer read the same."""
    return TEXT if base.static_text_features else layer_path(target)


def layer_path(target: str) -> str:
    return target.rpartition(".")[0]


def general_factors(base: Base, generator: torch.Generator) -> Factors:
    """Of captions of diverse things in the base's words, and of the empty prompt of classifier-free guidance.

    Raises:
        MnemonError: no word that captions are made of is a single token of the base.
    """
    count = GENERAL if base.static_text_features else GENERAL_SAMPLED
    return text_factors(base, ["", *general_captions(base, count, seed=1)], generator)


def concept_factors(
    base: Base, prompt_name: str, is_style: bool, generator: torch.Generator, weigh: Weigh = alike
) -> Factors:
    """Of prompts with the concept; the base knows its token."""
    return text_factors(base, captions_about(base.single_token_words, prompt_name, OWN, is_style), generator, weigh)


@torch.no_grad()
def text_factors(base: Base, prompts: Sequence[str], generator: torch.Generator, weigh: Weigh = alike) -> Factors:
    """Of what the layers read under these prompts; `weigh` gives the weights, of mean one, of a layer's inputs."""
    layerwise = any(encoder.is_layerwise(prompt) for encoder in base.encoders for prompt in prompts)
    static = base.static_text_features and not layerwise
    read = _static_inputs(base, prompts) if static else _layer_inputs(base, prompts, generator)
    sampled = {layer: _sampled(rows, generator) for layer, rows in read.items()}
    return {layer: _factor(rows * weigh(layer, rows).sqrt()[:, None]) for layer, rows in sampled.items()}


def joined(parts: Sequence[Factors]) -> Factors:
    """F with F F^T the sum of the parts' F F^T, of no more than d_in columns, by layer."""
    keys = dict.fromkeys(layer for part in parts for layer in part)
    together = {key: torch.cat([part[key] for part in parts if key in part], dim=1) for key in keys}
    return {
        key: _square(columns) if columns.shape[1] > columns.shape[0] else columns for key, columns in together.items()
    }


def to_extra(factors: Factors) -> dict[str, Tensor]:
    """As they are stored with a concept."""
    return {f"{PREFIX}{layer}": factor.cpu().clone() for layer, factor in factors.items()}


def from_extra(extra: Mapping[str, Tensor], device: torch.device) -> Factors:
    return {key.removeprefix(PREFIX): factor.to(device) for key, factor in extra.items() if key.startswith(PREFIX)}


PREFIX = "features/"
"""Of the keys in `TrainedConcept.extra`."""


def _static_inputs(base: Base, prompts: Sequence[str]) -> dict[str, Tensor]:
    """(rows, d_in): the prompts' own tokens and EOS."""
    return {TEXT: torch.cat([words.float() for words in base.token_features(prompts)])}


def _layer_inputs(base: Base, prompts: Sequence[str], generator: torch.Generator) -> dict[str, Tensor]:
    """(rows, d_in) of every layer, at random timesteps of noise."""
    read: dict[str, list[Tensor]] = {}
    first = {layer_path(target): module for target, module in reversed(base.target_modules().items())}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, layer=layer: read.setdefault(layer, []).append(inputs[0].float().flatten(0, -2))
        )
        for layer, module in first.items()
    ]
    try:
        for prompt in prompts:
            noise = torch.randn(1, *base.latent_shape(), generator=generator, device=generator.device).to(base.device)
            timesteps = base.schedule.sample_timesteps(1, generator)
            base.predict(noise, timesteps.to(base.device), base.encode_prompts([prompt]))
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: torch.cat(parts) for layer, parts in read.items()}


def _sampled(rows: Tensor, generator: torch.Generator) -> Tensor:
    if len(rows) <= ROWS:
        return rows
    chosen = torch.randperm(len(rows), generator=generator, device=generator.device)[:ROWS]
    return rows[chosen.to(rows.device)]


def _factor(rows: Tensor) -> Tensor:
    """F (d_in, k) of inputs (rows, d_in), by a singular value decomposition."""
    _, values, directions = torch.linalg.svd(rows / len(rows) ** 0.5, full_matrices=False)
    energy = values.square().cumsum(0) / values.square().sum()
    kept = int((energy < ENERGY).sum()) + 1
    return (directions[:kept] * values[:kept, None]).T.contiguous()


def _square(columns: Tensor) -> Tensor:
    """F (d, d) with the same F F^T."""
    values, vectors = torch.linalg.eigh(columns @ columns.T)
    return vectors * values.clamp_min(0).sqrt()
