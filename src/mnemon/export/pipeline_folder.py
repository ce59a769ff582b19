"""A whole diffusers pipeline with the concepts: changes merged into the weights, tokens added to the tokenizers."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from tokenizers import AddedToken
from torch import Tensor

from mnemon.adapters import merge
from mnemon.errors import MnemonError
from mnemon.export.naming import placeholder_tokens, tokenizer_of
from mnemon.export.selection import Selection
from mnemon.files import write_json, writing
from mnemon.models.layers import every_layer
from mnemon.models.pipeline_folder import without_bars
from mnemon.names import HUB_ID

PLACES = ("_name_or_path", "name_or_path")
"""Keys in configs for where a model was loaded from."""


def write_pipeline(selection: Selection, folder: Path, dtype: torch.dtype) -> None:
    """Write a folder that `DiffusionPipeline.from_pretrained` opens and whose tokenizers know `<rex>`.

    A token of several vectors is `<rex>`, `<rex>_1`, ... in tokenizer and embedding table. Pipelines with textual
    inversion expand `<rex>` themselves. The base itself stays as it is.

    Raises:
        MnemonError: the base is no diffusers pipeline that can be written, or a tokenizer has the token already.
    """
    base: Any = selection.base
    if not hasattr(base, "pipeline"):
        raise MnemonError(f"The base '{base.name}' is no diffusers pipeline: it cannot be written as one.")
    with merge(every_layer(base), selection.deltas):
        pipeline = base.pipeline()
        for encoder, vectors in _by_encoder(selection).items():
            tokenizer, model = _with_tokens(pipeline, encoder, vectors)
            pipeline.register_modules(**{encoder: model, tokenizer_of(encoder): tokenizer})
        if dtype != torch.float32:
            modules = {part: one for part, one in pipeline.components.items() if isinstance(one, torch.nn.Module)}
            pipeline.register_modules(**copy.deepcopy(modules))
            pipeline.to(dtype=dtype)
        with without_bars(), writing(folder):
            pipeline.save_pretrained(str(folder))
            _forget_places(folder)


def _forget_places(folder: Path) -> None:
    """Take out of the configs where on this machine the base lies; ids of the hub stay."""
    for path in (*folder.rglob("*config.json"), *folder.glob("model_index.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        places = [key for key in PLACES if key in config and not HUB_ID.fullmatch(str(config[key]))]
        if places:
            write_json(path, {key: value for key, value in config.items() if key not in places})


def _by_encoder(selection: Selection) -> dict[str, dict[str, Tensor]]:
    """Text encoder -> the tokenizer's token -> its vector (width,)."""
    vectors: dict[str, dict[str, Tensor]] = {}
    for name, tokens in selection.tokens.items():
        for encoder, rows in tokens.items():
            new = dict(zip(placeholder_tokens(name, len(rows)), rows.detach(), strict=True))
            vectors.setdefault(encoder, {}).update(new)
    return vectors


def _with_tokens(pipeline: Any, encoder: str, vectors: dict[str, Tensor]) -> tuple[Any, Any]:
    """Copies of the tokenizer and its text encoder with the tokens added."""
    reader, model = (copy.deepcopy(getattr(pipeline, part)) for part in (tokenizer_of(encoder), encoder))
    tokenizer = getattr(reader, "tokenizer", reader)  # of a processor of text and images
    taken = sorted(set(vectors) & set(tokenizer.get_vocab()))
    if taken:
        raise MnemonError(f"The tokenizer of the base has '{taken[0]}' already: learn the concept by another name.")
    # Byte-level vocabularies have " dog" as one token with its space, so a new token strips the space before it. But
    # where diffusers expands tokens of several vectors, it looks for them without any space.
    spaced = not isinstance(pipeline, TextualInversionLoaderMixin)
    tokenizer.add_tokens([AddedToken(token, lstrip=spaced, normalized=False) for token in vectors])
    ids = tokenizer.convert_tokens_to_ids(list(vectors))
    table = model.get_input_embeddings().weight
    if max(ids) >= len(table):
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        table = model.get_input_embeddings().weight
    with torch.no_grad():
        table[ids] = torch.stack(list(vectors.values())).to(table)
    _set_eos_token(tokenizer, model)
    return reader, model


def _set_eos_token(tokenizer: Any, model: Any) -> None:
    """Published CLIP encoders have `eos_token_id` 2 and pool at the largest id, which would be the new token's."""
    config = getattr(model.config, "text_config", model.config)
    if getattr(config, "eos_token_id", None) == 2:
        config.eos_token_id = tokenizer.eos_token_id
