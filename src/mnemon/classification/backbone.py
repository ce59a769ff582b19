"""A frozen vision transformer of `transformers`: features of images, with prefixes, tokens and changed weights."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mnemon.errors import MnemonError
from mnemon.models.fingerprint import fingerprint_of_modules
from mnemon.world import backbone_folder

Prefix = tuple[Tensor, Tensor]
"""P_K and P_V of one block, (images, length, width) each."""
Targets = Literal["qkv", "kv", "qv", "k"]
"""Projections of self-attention, in every block."""
ATTENTION = "mnemon_prefix"
PROJECTIONS = {"q": ("q_proj", "query"), "k": ("k_proj", "key"), "v": ("v_proj", "value")}
HALF = (0.5, 0.5, 0.5)
BUILT_IN = "world"
"""The name of the built-in backbone."""


@dataclass(frozen=True)
class Family:
    """How transformers names the models of a family.

    Attributes:
        model: class of the bare model.
        classifier: class of the model with a head that reads the class token, if there is one.
        options: to make the bare model without parts that are not used.
        pools_patches: the classifier's head reads the class token and the mean of the patches, side by side.
    """

    model: str
    classifier: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    pools_patches: bool = False


_NO_POOLER = {"add_pooling_layer": False}
FAMILIES = {
    "vit": Family("ViTModel", "ViTForImageClassification", _NO_POOLER),
    "deit": Family("DeiTModel", "DeiTForImageClassification", _NO_POOLER),
    "dinov2": Family("Dinov2Model", "Dinov2ForImageClassification", pools_patches=True),
    "clip_vision_model": Family("CLIPVisionModel", None),
    "clip": Family("CLIPVisionModel", None),
}


class Backbone:
    """A frozen vision transformer.

    Args:
        model: a bare model of one of the `FAMILIES`; its attention is set to one that takes prefixes.
        name: the folder or hub id it comes from.
        mean, std: of its images, by channel, in 0..1.

    Raises:
        MnemonError: it is no vision transformer with projections of queries, keys and values apart.
    """

    def __init__(
        self,
        model: Any,
        name: str = "",
        mean: tuple[float, ...] = HALF,
        std: tuple[float, ...] = HALF,
    ) -> None:
        self.model: nn.Module = model.eval().requires_grad_(False)
        self.name, self.mean, self.std = name, mean, std
        self.config: Any = model.config
        self.family: str = self.config.model_type
        self.width: int = self.config.hidden_size
        self.image_size: int = self.config.image_size
        self._attention = [module for module in model.modules() if _projections(module)]
        if not self._attention:
            raise MnemonError(
                f"'{name}' ({self.family}) is no vision transformer with queries, keys and values of their own: "
                f"give one of {', '.join(FAMILIES)}."
            )
        _take_prefixes(model)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self._attention)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the weights: of a backbone as it was loaded, so read it before any change."""
        return fingerprint_of_modules({"backbone": self.model})

    def projections(self, targets: Targets) -> dict[str, nn.Linear]:
        """The linear layers that `targets` names, by their names in the model, block by block."""
        names = {module: name for name, module in self.model.named_modules()}
        found = [(block, _projections(block)) for block in self._attention]
        return {
            f"{names[block]}.{layers[one]}": getattr(block, layers[one]) for block, layers in found for one in targets
        }

    def layers(self) -> dict[str, nn.Linear]:
        """All linear layers of the model, by name."""
        return {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}

    def features(
        self, images: Tensor, prefixes: Mapping[int, Prefix] | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """What a classifier reads, (images, width): the class token after the last norm.

        Args:
            images: (images, 3, side, side), normalised.
            prefixes: by block; keys and values that its attention reads before its own. Queries stay as they are.
            tokens: (images, count, width), put before all others where these enter the first block. The mean of what
                becomes of them takes the place of the class token.
        """
        count = 0 if tokens is None else tokens.shape[1]
        with self._with_prefixes(prefixes or {}), self._with_tokens(tokens):
            hidden = self.model(pixel_values=images).last_hidden_state
        pooled = hidden[:, :count].mean(1) if count else hidden[:, 0]
        norm = _last_norm(self.model)
        return norm(pooled) if norm else pooled

    @contextmanager
    def replaced(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """The model with other parameters, by name, in place of its own."""
        own = {name: _owner(self.model, name) for name in parameters}
        before = {name: module._parameters[leaf] for name, (module, leaf) in own.items()}
        try:
            for name, (module, leaf) in own.items():
                module._parameters[leaf] = parameters[name]
            yield
        finally:
            for name, (module, leaf) in own.items():
                module._parameters[leaf] = before[name]

    @contextmanager
    def _with_prefixes(self, prefixes: Mapping[int, Prefix]) -> Iterator[None]:
        with ExitStack() as undo:
            for block, prefix in prefixes.items():
                vars(self._attention[block])["prefix"] = prefix
                undo.callback(vars(self._attention[block]).pop, "prefix")
            yield

    @contextmanager
    def _with_tokens(self, tokens: Tensor | None) -> Iterator[None]:
        if tokens is None:
            yield
            return
        embeddings = next(module for name, module in self.model.named_modules() if name.split(".")[-1] == "embeddings")
        handle = embeddings.register_forward_hook(lambda _, __, output: torch.cat([tokens, output], 1))
        try:
            yield
        finally:
            handle.remove()


def load_backbone(name: str, device: torch.device | str = "cpu") -> Backbone:
    """A backbone from a `transformers` folder or hub id (safetensors only), in fp32, or the built-in one, "world". Of a
    classifier the head is left out.

    Raises:
        MnemonError: there is none, it cannot be read, or it is of no known family.
    """
    import transformers

    from mnemon.models.pipeline_folder import first_line, without_bars

    if name != BUILT_IN and Path(name).is_dir():
        name = str(Path(name).resolve())  # a library finds it from anywhere
    source = str(backbone_folder()) if name == BUILT_IN else name
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise MnemonError(
            f"There is no backbone '{name}': give a folder with a vision transformer of transformers, or its hub id."
        ) from error
    if config.model_type not in FAMILIES:
        raise MnemonError(
            f"The model '{name}' is of the family '{config.model_type}', which is no backbone here: give one of "
            f"{', '.join(FAMILIES)}."
        )
    family = FAMILIES[config.model_type]
    try:
        with without_bars():
            model, info = getattr(transformers, family.model).from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **family.options
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise MnemonError(f"The weights of the backbone '{name}' cannot be read ({reason}): fetch it again.") from error
    if missing := sorted(info["missing_keys"]):  # transformers would fill them with random numbers
        raise MnemonError(
            f"The weights of the backbone '{name}' lack {len(missing)} tensors, such as '{missing[0]}': fetch it again."
        )
    mean, std = _image_statistics(source)
    return Backbone(model.to(device), name, mean, std)


def _image_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the images that the backbone was trained on; 0.5 where its folder does not say."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        said, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        said = {}
    return tuple(said.get("image_mean", HALF)), tuple(said.get("image_std", HALF))


def _projections(module: nn.Module) -> dict[str, str]:
    """What the module calls its projections of queries, keys and values; empty if it has not all three."""
    layers = dict(module.named_children())
    found = {
        one: name for one, names in PROJECTIONS.items() for name in names if isinstance(layers.get(name), nn.Linear)
    }
    return found if len(found) == len(PROJECTIONS) else {}


def _last_norm(model: nn.Module) -> nn.Module | None:
    """The norm that CLIP gives to the pooled token alone; the other families norm all tokens in the model."""
    return next((module for name, module in model.named_modules() if name.split(".")[-1] == "post_layernorm"), None)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _take_prefixes(model: Any) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
    ) -> tuple[Tensor, None]:
        """Scaled dot product attention, after the keys and values of `module.prefix`, (images, heads, tokens, d)."""
        if (prefix := vars(module).get("prefix")) is not None:
            heads = [part.unflatten(-1, (key.shape[1], -1)).transpose(1, 2) for part in prefix]
            key, value = torch.cat([heads[0], key], 2), torch.cat([heads[1], value], 2)
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **more)
        return result

    AttentionInterface.register(ATTENTION, attention)
    model.set_attn_implementation(ATTENTION)
