"""The vectors of tokens in files of other tools: embedding files, and embeddings inside LoRA files.

emb_params, string_to_param.*            one text encoder: A1111, kohya, ai-toolkit
<token>, or any single tensor            one text encoder: diffusers, cloneofsimo
clip_l, clip_g, t5xxl, qwen3_4b, ...     by text encoder: ComfyUI, kohya, ai-toolkit
bundle_emb.<name>.<any of these>         inside a LoRA: OneTrainer
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mnemon.export.account import Account
from mnemon.export.layer_names import encoder_keys
from mnemon.export.naming import BY_WIDTH, CLIP, embedding_key, naming_of
from mnemon.models import Base

ONE_ENCODER = ("emb_params", "string_to_param.*", "*")
ENCODERS = (*CLIP, "t5xxl", "t5", *BY_WIDTH.values())
BUNDLED = re.compile(r"bundle_emb\.(?P<name>.+?)\.(?P<kind>string_to_param\.\*|[^.]+)")
PLACEHOLDER = re.compile(r"<[^<>.]+>(_\d+)?")


@dataclass(frozen=True)
class _Found:
    """A key of vectors: of which token, "" if the file does not say, and of which text encoder, None for another's."""

    token: str
    kind: str
    encoder: str | None


def read_tokens(account: Account, base: Base) -> dict[str, Tensor] | None:
    """Text encoder -> (vectors, width) in fp32, of the one token in the file; None without one.

    Keys of vectors that cannot be taken are left in the account, with the reason.
    """
    found = _found({key: account.file.tensors[key] for key in account.open}, base)
    tokens = sorted({one.token for one in found.values()})
    if len(tokens) > 1:
        names = " and ".join(f"'{token}'" for token in tokens)
        account.leave(found, f"embeddings of {len(tokens)} tokens ({names}), of which a concept has one")
        return None
    _leave_unusable(account, found)
    usable = {key: one.encoder for key, one in found.items() if one.encoder and key not in account.left}
    if not usable:
        return None
    vectors = {encoder: account.file.tensors[key] for key, encoder in usable.items()}
    return fitting(account, base, {encoder: [key] for key, encoder in usable.items()}, vectors)


def fitting(
    account: Account, base: Base, keys: Mapping[str, list[str]], vectors: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The vectors (vectors, width) in fp32 by text encoder, if they are those that the base reads, with their keys
    carried; else None, and the keys are left."""
    expected = {encoder: width for encoder, (width, _, _) in base.embedding_statistics().items()}
    widths = {encoder: tensor.shape[-1] for encoder, tensor in vectors.items()}
    if widths == expected:
        for encoder, of_encoder in keys.items():
            account.carry(of_encoder, encoder)
        return {encoder: tensor.reshape(-1, tensor.shape[-1]).float() for encoder, tensor in vectors.items()}
    account.leave(
        [key for of_encoder in keys.values() for key in of_encoder],
        f"an embedding of the widths {_said(widths)} where the base reads {_said(expected)}, made for another family",
    )
    return None


def _found(tensors: Mapping[str, Tensor], base: Base) -> dict[str, _Found]:
    encoders = _encoders(base)
    found = {}
    for key in tensors:
        bundled = BUNDLED.fullmatch(key)
        token, kind = (bundled["name"], bundled["kind"]) if bundled else ("", key)
        if bundled or kind in encoders or kind in ENCODERS or kind in ONE_ENCODER:
            found[key] = _Found(token, kind, encoders.get(kind))
    placeholders = [key for key in tensors if PLACEHOLDER.fullmatch(key)]
    alone = list(tensors) if len(tensors) == 1 and "." not in next(iter(tensors)) else []
    only = next(iter(base.embedding_statistics())) if len(base.embedding_statistics()) == 1 else None
    return found | {key: _Found(key, key, only) for key in placeholders or alone if key not in found}


def _encoders(base: Base) -> dict[str, str]:
    """What a file may call the vectors of a text encoder -> the encoder."""
    naming, widths = naming_of(base), base.embedding_statistics()
    names = {key: encoder for encoder in widths for key in encoder_keys(naming.encoders[encoder])}
    names |= {embedding_key(naming, encoder, width): encoder for encoder, (width, _, _) in widths.items()}
    return names | (dict.fromkeys(ONE_ENCODER, next(iter(widths))) if len(widths) == 1 else {})


def _leave_unusable(account: Account, found: Mapping[str, _Found]) -> None:
    taken: dict[str, str] = {}
    for key, one in found.items():
        tensor = account.file.tensors[key]
        if one.encoder is None:
            account.leave([key], f"vectors for '{one.kind}', which is no text encoder of the base")
        elif tensor.ndim not in (1, 2) or not tensor.is_floating_point() or not tensor.numel():
            account.leave([key], f"no vectors, but {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}")
        elif one.encoder in taken:
            account.leave([key], f"vectors for the same text encoder as '{taken[one.encoder]}'")
        else:
            taken[one.encoder] = key


def _said(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{width} ({encoder})" for encoder, width in widths.items())
