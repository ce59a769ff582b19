"""Every layer of a base that can be adapted: beyond the target modules that methods train, for adapters that were
trained elsewhere and touch queries, outputs, feed-forward layers, convolutions or text encoders."""

from torch import nn

from mnemon.models.base import Base

Layer = nn.Linear | nn.Conv2d


def every_layer(base: Base) -> dict[str, Layer]:
    """The denoiser's linear layers and convolutions by module path, target modules included, and the text encoders' as
    `<encoder>.<path>`, such as `text_encoder.encoder.layers.0.self_attn.k_proj`.

    The level `text_model` is left out of paths: depending on the version of transformers, CLIP has it or not.
    """
    layers = _layers(base.denoiser)
    for encoder in base.encoders:
        for path, layer in _layers(encoder.model).items():
            layers[f"{encoder.name}.{path.removeprefix('text_model.')}"] = layer
    return layers


def _layers(module: nn.Module) -> dict[str, Layer]:
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
