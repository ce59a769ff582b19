"""Every layer of a base that can be adapted: beyond the target modules that methods train, for adapters that were
trained elsewhere and touch queries, outputs, feed-forward layers, convolutions or text encoders."""

from torch import Tensor, nn

from mnemon.models.base import Base
from mnemon.models.tokens import PromptEncoder

Layer = nn.Linear | nn.Conv2d


def every_layer(base: Base) -> dict[str, Layer]:
    """The denoiser's linear layers and convolutions by module path, target modules included, and the text encoders' as
    `<encoder>.<path>`, such as `text_encoder.encoder.layers.0.self_attn.k_proj`.

    The level `text_model` is left out of paths: depending on the version of transformers, CLIP has it or not.
    """
    layers = dict(_layers(base.denoiser))
    for encoder in _encoders(base):
        for path, layer in _layers(encoder.model).items():
            layers[f"{encoder.name}.{path.removeprefix('text_model.')}"] = layer
    return layers


def phrase_vectors(base: Base, phrase: str) -> dict[str, Tensor]:
    """For each text encoder the embeddings (tokens, width) of the phrase's own tokens, in fp32: a concept token with
    these vectors says what the phrase says, in any prompt.

    Raises:
        MnemonError: the phrase is empty.
    """
    return {encoder.name: encoder.phrase_vectors(phrase) for encoder in _encoders(base)}


def _encoders(base: Base) -> list[PromptEncoder]:
    return list(getattr(base, "encoders", []))


def _layers(module: nn.Module) -> dict[str, Layer]:
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
